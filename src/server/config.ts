// Everything an operator can decide, as one value: cli/ makes it from flags and environment, compose.ts reads it.

import type { ListenAddress, TlsOptions } from "../grpc/server.ts";
import type { LogLevel } from "../telemetry/log.ts";

export interface ServerConfig {
  readonly listen: readonly ListenAddress[];
  /** One address per line, in the order of `listen`, written once all accept. */
  readonly portFile: string | undefined;
  /** Absolute; `:memory:` keeps everything in memory. */
  readonly dataDir: string;
  readonly maxSizeBytes: number;
  /** lazy: answers before what was stored is on the disk. */
  readonly durability: "sync" | "lazy";
  /** How long what an invocation touched is kept after its last call; 0: no longer than anything else. */
  readonly leaseMs: number;
  /** Actions at once; 0 = cache only. */
  readonly slots: number;
  /**
   * auto: cache only when no sandbox works; require: refuse to start then; own: as auto, made by our own builder where
   * that works; none: run actions unprotected.
   */
  readonly sandbox: "auto" | "require" | "own" | "none";
  readonly bwrapPath: string | undefined;
  /** What the platform properties of actions may ask for, and what they see of this machine. */
  readonly platform: PlatformConfig;
  readonly logLevel: LogLevel;
  readonly logFormat: "text" | "json";
  readonly drainTimeoutMs: number;
  /** 0: no limit. */
  readonly maxConnectionAgeMs: number;
  /** 0: no limit; undefined: 512, and no limit for this machine. */
  readonly maxConnectionsPerAddress: number | undefined;
  /** Path prefixes below which HTTP is a plain key-value store; "/opaque". */
  readonly httpOpaquePrefixes: readonly string[];
  readonly maxLogBytes: number;
  readonly defaultActionTimeoutMs: number;
  readonly maxActionTimeoutMs: number;
  readonly orphanGraceMs: number;
  readonly maxQueueDepth: number;
  readonly tls: TlsOptions | undefined;
}

export interface PlatformConfig {
  readonly allowNetwork: boolean;
  /** A request that names one of these properties must ask for one of its values. */
  readonly properties: ReadonlyMap<string, readonly string[]>;
  readonly ignoredProperties: ReadonlySet<string>;
  /** Root directories of unpacked images, by the name actions ask for. */
  readonly images: ReadonlyMap<string, string>;
  /** Folders of this machine that actions see. */
  readonly mounts: readonly ConfiguredMount[];
  /** What actions of an instance name see as `/`; the host's tools where it is not named. */
  readonly rootModes: ReadonlyMap<string, RootMode>;
}

export interface ConfiguredMount {
  readonly source: string;
  readonly destination: string;
  readonly writable: boolean;
  /** An absent source is passed over instead of failing the action. */
  readonly optional: boolean;
  /** Only actions with this platform property see it. */
  readonly condition: { readonly name: string; readonly value: string } | undefined;
}

/** `image` is a name of `images`. */
export type RootMode = "host" | "input-root" | { readonly image: string };
