// One row for every platform property seen in use: what this server does about it.
//
// Invariant: every name of section 3 of wire/platform-properties.md has a row; test/worker/platform-table.test.ts reads
// the list. A property that changes what an action means is never ignored, only refused.

export type PlatformRule =
  /** Accepted without effect and counted; `why` says why that is harmless. */
  | { readonly kind: "ignore"; readonly why: string }
  | { readonly kind: "os-family" }
  | { readonly kind: "isa" }
  /** Equal to one of the values given with --property. */
  | { readonly kind: "declared" }
  | { readonly kind: "worker" }
  | { readonly kind: "one-of"; readonly values: readonly string[]; readonly why: string }
  /** A number that the machine must reach; `unit` is how many of the machine's units one of the property's is. */
  | { readonly kind: "minimum"; readonly of: "cores" | "memory" | "none"; readonly unit: number }
  | { readonly kind: "network"; readonly on: string; readonly off: string }
  | { readonly kind: "user"; readonly field: "unixUid" | "unixGid" }
  | { readonly kind: "run-as-root" }
  | { readonly kind: "image" }
  | { readonly kind: "memory-limit" }
  | { readonly kind: "input-root-path" }
  | { readonly kind: "environment" }
  /** Would change what the action means, and we cannot do it. */
  | { readonly kind: "unsupported"; readonly why: string };

const DECLARED: PlatformRule = { kind: "declared" };
const ONLY_FALSE: PlatformRule = { kind: "one-of", values: ["false"], why: "actions never get more rights" };

function ignore(why: string): PlatformRule {
  return { kind: "ignore", why };
}

export const PLATFORM_TABLE: ReadonlyMap<string, PlatformRule> = new Map<string, PlatformRule>([
  // The standard vocabulary.
  ["OSFamily", { kind: "os-family" }],
  ["ISA", { kind: "isa" }],

  // Which worker or queue: equal to what the operator declared.
  ["Pool", DECLARED],
  ["Worker", { kind: "worker" }],
  ["choose-queue", DECLARED],
  ["OSRelease", DECLARED],
  ["cpu_arch", { kind: "isa" }],
  ["cpu_vendor", DECLARED],
  ["cpu_model", DECLARED],
  ["gpu_model", DECLARED],
  ["kernel_version", DECLARED],
  ["runner", DECLARED],

  // The image the action sees.
  ["container-image", { kind: "image" }],
  ["container-registry-username", ignore("images are local directories, nothing is pulled")],
  ["container-registry-password", ignore("images are local directories, nothing is pulled")],
  ["chrootRootDigest", { kind: "unsupported", why: "a second directory as root file system" }],

  // Network.
  ["network", { kind: "network", on: "on", off: "off" }],
  ["dockerNetwork", { kind: "network", on: "standard", off: "off" }],
  ["block-network", { kind: "network", on: "false", off: "true" }],

  // Users and rights.
  ["unixUID", { kind: "user", field: "unixUid" }],
  ["unixGID", { kind: "user", field: "unixGid" }],
  ["dockerRunAsRoot", { kind: "run-as-root" }],
  ["dockerPrivileged", ONLY_FALSE],
  ["dockerSiblingContainers", ONLY_FALSE],
  ["dockerAddCapabilities", { kind: "one-of", values: [""], why: "actions never get more rights" }],
  ["dockerDropCapabilities", ignore("every capability is dropped anyway")],
  ["as-nobody", ignore("actions never run as the server's user with rights")],

  // How the action is isolated: ours is always on.
  ["dockerRuntime", ignore("there is one sandbox")],
  ["dockerUseURandom", ignore("/dev/urandom is always there")],
  ["fake-hostname", ignore("the host name is always fixed")],
  ["tmpfs", ignore("/tmp is always private")],
  ["linux-sandbox", ignore("there is one sandbox")],
  ["process-wrapper", ignore("everything the action started always dies with it")],
  ["InputRootAbsolutePath", { kind: "input-root-path" }],
  ["remoteApisSocketPath", { kind: "unsupported", why: "no socket of this server inside the sandbox" }],

  // Sizes: what must be there is checked, what would only be a share is not.
  ["cores", { kind: "minimum", of: "cores", unit: 1 }],
  ["min-cores", { kind: "minimum", of: "cores", unit: 1 }],
  ["max-cores", ignore("actions share the cores")],
  ["cpu_count", { kind: "minimum", of: "cores", unit: 1 }],
  ["min-mem", { kind: "minimum", of: "memory", unit: 1 }],
  ["max-mem", { kind: "memory-limit" }],
  ["memory_kb", { kind: "minimum", of: "memory", unit: 1024 }],
  ["gpu_count", { kind: "minimum", of: "none", unit: 1 }],
  ["gceMachineType", ignore("there is one machine")],
  ["dockerShmSize", ignore("/dev/shm has no limit of its own")],
  ["shm_size", ignore("/dev/shm has no limit of its own")],
  ["dockerUlimits", ignore("limits are the operator's")],
  ["network_kbps", ignore("bandwidth is not shared out")],
  ["disk_read_iops", ignore("bandwidth is not shared out")],
  ["disk_read_bps", ignore("bandwidth is not shared out")],
  ["disk_write_iops", ignore("bandwidth is not shared out")],
  ["disk_write_bps", ignore("bandwidth is not shared out")],

  // What the action sees.
  ["env-var", { kind: "environment" }],
  ["env-vars", { kind: "environment" }],

  // Buildfarm's debugging aids and Bazel's hint; without them the action runs as usual.
  ["debug-before-execution", ignore("the action runs as usual")],
  ["debug-after-execution", ignore("the action runs as usual")],
  ["debug-tests-only", ignore("the action runs as usual")],
  ["debug-target", ignore("the action runs as usual")],
  ["persistentWorkerKey", ignore("the action runs in a process of its own")],
  ["persistentWorkerCommand", ignore("the action runs in a process of its own")],
]);
