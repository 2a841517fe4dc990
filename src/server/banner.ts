// What a start says to the person who typed it: where it listens and stores, whether it executes, what to paste.

import { formatBytes } from "../base/units.ts";
import { formatAddress, type ListenAddress } from "../grpc/server.ts";
import type { LogFields } from "../telemetry/log.ts";
import type { ExecutionStatus } from "./compose-execution.ts";
import type { ServerConfig } from "./config.ts";

export interface BannerFacts {
  readonly version: string;
  readonly config: ServerConfig;
  readonly addresses: readonly ListenAddress[];
  readonly execution: ExecutionStatus;
}

export function bannerText(facts: BannerFacts): string {
  const { config, addresses, execution } = facts;
  return [
    facts.version,
    `  listens on  ${addresses.map((address) => clientUrl(address, config)).join(", ")}`,
    `  stores in   ${config.dataDir === ":memory:" ? "memory" : config.dataDir} (up to ${formatBytes(config.maxSizeBytes)})`,
    `  executes    ${executionText(execution)}`,
    "",
    "# .bazelrc",
    ...bazelrc(facts),
    "",
  ].join("\n");
}

/** The same as fields of one log line. */
export function bannerFields({ version, config, addresses, execution }: BannerFacts): LogFields {
  return {
    version,
    listen: addresses.map((address) => clientUrl(address, config)).join(" "),
    dataDir: config.dataDir,
    maxSizeBytes: config.maxSizeBytes,
    slots: execution.enabled ? execution.slots : 0,
    execution: executionText(execution),
  };
}

function executionText(execution: ExecutionStatus): string {
  if (!execution.enabled) return `nothing: ${execution.reason}`;
  return `${execution.slots} ${execution.slots === 1 ? "action" : "actions"} at once, ${execution.isolation}`;
}

function bazelrc({ config, addresses, execution }: BannerFacts): string[] {
  const [first] = addresses;
  const url = first === undefined ? "" : clientUrl(first, config);
  const lines = [`build --remote_cache=${url}`];
  if (execution.enabled)
    lines.push(`build --remote_executor=${url}`, `build --jobs=${Math.max(8, execution.slots * 4)}`);
  if (config.tls !== undefined) lines.push("build --tls_certificate=/path/to/the/ca.pem");
  return lines;
}

/** What a client is told: a server that listens on every interface is reached by its name, here by the loopback one. */
export function clientUrl(address: ListenAddress, config: Pick<ServerConfig, "tls">): string {
  if (address.kind !== "tcp") return formatAddress(address);
  const host = address.host === "0.0.0.0" ? "127.0.0.1" : address.host === "::" ? "::1" : address.host;
  return `${config.tls === undefined ? "grpc" : "grpcs"}://${formatAddress({ ...address, host })}`;
}
