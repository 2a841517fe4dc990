// /metrics: the registry in the text format of Prometheus.
//
// Source: prometheus.io, "Exposition formats", version 0.0.4. Series of one name stand together under one HELP and TYPE.

import type { Labels, MetricsRegistry, Sample } from "../telemetry/metrics.ts";

export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

export function renderMetrics(metrics: MetricsRegistry): string {
  const byName = Map.groupBy(metrics.samples(), ({ name }) => name);
  return [...byName].map(([name, samples]) => renderFamily(name, samples)).join("");
}

function renderFamily(name: string, samples: readonly Sample[]): string {
  const [first] = samples;
  if (first === undefined) return "";
  const lines = samples.map(({ labels, value }) => `${name}${renderLabels(labels)} ${renderValue(value)}\n`);
  return `# HELP ${name} ${escapeHelp(first.help)}\n# TYPE ${name} ${first.type}\n${lines.join("")}`;
}

function renderLabels(labels: Labels): string {
  const parts = Object.entries(labels).map(([label, value]) => `${label}="${escapeLabel(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}

function renderValue(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  return String(value);
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
