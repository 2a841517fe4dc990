// What the operator's decisions about actions come to, in the words of worker and runner.
//
// One place for the server and for `ledge sandbox`, so that both show an action the same.

import assert from "node:assert";
import { availableParallelism, totalmem } from "node:os";
import type { RunSpec } from "../runner/runner.ts";
import type { ConfiguredMount } from "../worker/action-mounts.ts";
import { machineIsa } from "../worker/machine-isa.ts";
import type { PlatformOffer } from "../worker/platform-properties.ts";
import type { PlatformConfig } from "./config.ts";

/** The runner knows images by the path of their root directory. */
export function rootModeOf({ rootModes, images }: PlatformConfig, instanceName: string): RunSpec["rootMode"] {
  const mode = rootModes.get(instanceName) ?? "host";
  if (typeof mode === "string") return mode;
  const image = images.get(mode.image);
  assert(image !== undefined, "cli checked that every image of --root-mode is configured");
  return { image };
}

export function platformOffer(workerName: string, platform: PlatformConfig): PlatformOffer {
  return {
    osFamily: "linux",
    isa: machineIsa(),
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    workerName,
    properties: platform.properties,
    ignored: platform.ignoredProperties,
    images: platform.images,
    allowNetwork: platform.allowNetwork,
  };
}

export function configuredMounts({ mounts }: PlatformConfig): ConfiguredMount[] {
  return mounts.map(({ condition, ...mount }) => ({ mount, condition }));
}
