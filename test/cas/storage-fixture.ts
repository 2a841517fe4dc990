// Opens a storage in a directory of its own, and opens it again for tests of restarts.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { openStorage, type Storage, type StorageOptions } from "../../src/cas/storage.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";

export class StorageFixture implements AsyncDisposable {
  readonly dataDir = mkdtempSync(join(tmpdir(), "ledge-storage-"));
  #options: Partial<StorageOptions>;
  metrics = new MetricsRegistry();
  storage!: Storage;

  private constructor(options: Partial<StorageOptions>) {
    this.#options = options;
  }

  static async open(options: Partial<StorageOptions> = {}): Promise<StorageFixture> {
    const fixture = new StorageFixture(options);
    await fixture.#open();
    return fixture;
  }

  async restart(changed: Partial<StorageOptions> = {}, whileClosed: () => void = () => undefined): Promise<void> {
    await this.storage.close();
    whileClosed();
    this.#options = { ...this.#options, ...changed };
    await this.#open();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.storage.close();
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  async #open(): Promise<void> {
    this.metrics = new MetricsRegistry();
    this.storage = await openStorage({
      dataDir: this.dataDir,
      maxSizeBytes: 2 ** 30,
      clock: systemClock,
      logger: silentLogger,
      metrics: this.metrics,
      threads: 2,
      ...this.#options,
    });
  }
}
