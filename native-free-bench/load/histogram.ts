// Latencies in a log-linear histogram (the shape of HdrHistogram): constant memory, relative error below 1 %.
//
// Invariant: values are microseconds from 0 to an hour; each power of two is divided into 128 buckets. Histograms of
// several processes add up bucket by bucket.

const SUB_BITS = 7;
const SUB = 1 << SUB_BITS;
const BUCKETS = SUB * 26;

export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sum = 0;
  #max = 0;

  get count(): number {
    return this.#count;
  }

  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  get max(): number {
    return this.#max;
  }

  /** Adds one latency, in tenths of a microsecond resolution at best. */
  record(microseconds: number): void {
    const bucket = Math.min(BUCKETS - 1, bucketOf(microseconds));
    this.#counts[bucket] = this.#counts[bucket]! + 1;
    this.#count++;
    this.#sum += microseconds;
    if (microseconds > this.#max) this.#max = microseconds;
  }

  /** The value below which `share` (0 to 1) of the latencies lie, in microseconds. */
  quantile(share: number): number {
    if (this.#count === 0) return 0;
    const rank = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.#counts[bucket]!;
      if (seen >= rank) return Math.min(valueOf(bucket), this.#max);
    }
    return this.#max;
  }

  add(other: Histogram): void {
    for (let bucket = 0; bucket < BUCKETS; bucket++)
      this.#counts[bucket] = this.#counts[bucket]! + other.#counts[bucket]!;
    this.#count += other.#count;
    this.#sum += other.#sum;
    this.#max = Math.max(this.#max, other.#max);
  }

  /** The buckets that are not empty, for JSON and plots: [upper bound in microseconds, count]. */
  toJSON(): { sum: number; max: number; buckets: [number, number][] } {
    const buckets: [number, number][] = [];
    for (let bucket = 0; bucket < BUCKETS; bucket++)
      if (this.#counts[bucket]! > 0) buckets.push([bucket, this.#counts[bucket]!]);
    return { sum: this.#sum, max: this.#max, buckets };
  }

  static fromJSON(json: { sum: number; max: number; buckets: readonly (readonly [number, number])[] }): Histogram {
    const histogram = new Histogram();
    for (const [bucket, count] of json.buckets) {
      histogram.#counts[bucket] = count;
      histogram.#count += count;
    }
    histogram.#sum = json.sum;
    histogram.#max = json.max;
    return histogram;
  }
}

function bucketOf(value: number): number {
  const whole = Math.max(0, Math.floor(value));
  if (whole < SUB) return whole;
  const exponent = Math.floor(Math.log2(whole)) - SUB_BITS;
  return (exponent + 1) * SUB + (Math.floor(whole / 2 ** exponent) - SUB);
}

/** The middle of a bucket. */
function valueOf(bucket: number): number {
  if (bucket < SUB) return bucket + 0.5;
  const exponent = Math.floor(bucket / SUB) - 1;
  return ((bucket % SUB) + SUB + 0.5) * 2 ** exponent;
}
