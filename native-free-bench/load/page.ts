// `--html`: the report as one page that needs nothing else, with plots by uPlot, inlined.

import { readPackageFile } from "../../src/base/native-addon.ts";
import { formatRate, latencyOf, ratesOf, summarize, type BenchReport, type ScenarioReport } from "./report.ts";
import { median } from "./statistics.ts";

const COLOURS = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a"];

export function formatPage(report: BenchReport): string {
  const script = Buffer.from(readPackageFile("uplot/dist/uPlot.iife.min.js")).toString();
  const style = Buffer.from(readPackageFile("uplot/dist/uPlot.min.css")).toString();
  const curves = scalingCurves(report.scenarios);
  const plots = [...report.scenarios.map(plotsOf), curves];
  // "</script>" inside the data would end the element.
  const data = JSON.stringify(plots).replaceAll("<", "\\u003c");
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ledge bench</title>
<style>${style}
body{font:15px system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1f2328}
table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #d0d7de;text-align:right}td:first-child,th:first-child{text-align:left}
.plots{display:flex;flex-wrap:wrap;gap:1em}</style></head><body>
<h1>ledge bench</h1>
<p>${html(report.startedAt)}, ${html(report.machine)}, seed ${report.seed}. Ceiling of the generator: ${html(formatRate(report.ceilingPerSecond, "calls"))}.</p>
<p><code>${html(report.command)}</code></p>
${report.scenarios.map(sectionOf).join("\n")}
${curves.length === 0 ? "" : `<h2>Scaling</h2><p>Rate against calls in flight: connections × depth.</p><div class="plots">${curves.map(({ id }) => `<div id="${id}"></div>`).join("")}</div>`}
<script>${script.replaceAll("</script", "<\\/script")}</script>
<script>
for (const plots of ${data}) for (const plot of plots) {
  const series = plot.names.map((label, index) => ({ label, stroke: ${JSON.stringify(COLOURS)}[index % ${COLOURS.length}], width: 2, spanGaps: true }));
  new uPlot({ title: plot.title, width: 480, height: 280, scales: { x: { time: false, distr: plot.logX ? 3 : 1 } },
    axes: [{ label: plot.x }, { label: plot.y, size: 70 }], series: [{ label: plot.x }, ...series] }, plot.data, document.getElementById(plot.id));
}
</script></body></html>
`;
}

function sectionOf(scenario: ScenarioReport, index: number): string {
  const rows = summarize(scenario).map((row) => {
    const cells =
      row.problem !== undefined && row.rate === 0
        ? [html(row.problem)]
        : [
            html(formatRate(row.rate, scenario.unit)),
            row.p50.toFixed(2),
            row.p90.toFixed(2),
            row.p99.toFixed(2),
            row.max.toFixed(2),
            row.ratio?.estimate.toFixed(2) ?? "1",
            String(row.errors),
          ];
    return `<tr><td>${html(row.target)}</td>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  });
  return `<h2>${html(scenario.scenario)}</h2><p>${html(scenario.question)}</p>
<table><tr><th>target</th><th>rate</th><th>p50 ms</th><th>p90</th><th>p99</th><th>max</th><th>ratio</th><th>errors</th></tr>${rows.join("")}</table>
<div class="plots"><div id="latency${index}"></div><div id="time${index}"></div><div id="runs${index}"></div></div>`;
}

interface Plot {
  readonly id: string;
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly logX: boolean;
  readonly names: readonly string[];
  readonly data: readonly (readonly (number | null)[])[];
}

/** One curve a target for each scenario that was measured in several shapes. */
function scalingCurves(scenarios: readonly ScenarioReport[]): Plot[] {
  const byName = Map.groupBy(
    scenarios.filter(({ shape }) => shape !== undefined),
    ({ scenario }) => scenario.split("@")[0]!,
  );
  return [...byName].flatMap(([name, measured], index): Plot[] => {
    const inFlight = ({ shape }: ScenarioReport): number => shape!.connections * shape!.depth;
    const sorted = measured.toSorted((a, b) => inFlight(a) - inFlight(b));
    if (sorted.length < 2) return [];
    const names = sorted[0]!.targets.map(({ target }) => target);
    const rates = names.map((_, target) =>
      sorted.map(({ targets }) => {
        const values = ratesOf(targets[target]!);
        return values.length === 0 ? null : median(values);
      }),
    );
    const axes = { x: "calls in flight", y: `${sorted[0]!.unit}/s`, logX: true };
    return [{ id: `scaling${index}`, title: name, ...axes, names, data: [sorted.map(inFlight), ...rates] }];
  });
}

function plotsOf(scenario: ScenarioReport, index: number): Plot[] {
  const names = scenario.targets.map(({ target }) => target);
  const shares = Array.from({ length: 60 }, (_, step) => 1 - 10 ** (-step / 15));
  const latencies = scenario.targets.map((target) => {
    const histogram = latencyOf(target);
    return shares.map((share) => histogram.quantile(share) / 1000);
  });
  const slots = Math.max(0, ...scenario.targets.map(({ runs }) => runs[0]?.timeline.length ?? 0));
  const timelines = scenario.targets.map(({ runs }) =>
    Array.from(
      { length: slots },
      (_, slot) =>
        runs.reduce(
          (sum, run) => sum + ((run.timeline[slot] ?? 0) * slots * 1000 * run.unitsPerCall) / run.durationMs,
          0,
        ) / Math.max(1, runs.length),
    ),
  );
  const rates = scenario.targets.map(ratesOf);
  const runs = Math.max(0, ...rates.map(({ length }) => length));
  const counting = (count: number): number[] => Array.from({ length: count }, (_, position) => position + 1);
  return [
    // One over the share that is slower: 10 is p90, 100 is p99.
    {
      id: `latency${index}`,
      title: "Latency",
      x: "1 / (1 - quantile): 10 is p90, 100 p99",
      y: "ms",
      logX: true,
      names,
      data: [shares.map((share) => 1 / (1 - share)), ...latencies],
    },
    {
      id: `time${index}`,
      title: "Throughput over a run",
      x: "tenth of the run",
      y: `${scenario.unit}/s`,
      logX: false,
      names,
      data: [counting(slots), ...timelines],
    },
    {
      id: `runs${index}`,
      title: "Throughput by run",
      x: "run",
      y: `${scenario.unit}/s`,
      logX: false,
      names,
      data: [counting(runs), ...rates.map((values) => counting(runs).map((run) => values[run - 1] ?? null))],
    },
  ];
}

function html(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
