// Medians, spreads and intervals of a few runs.
//
// Source of the factors: Student's t, two-sided 95 %. With one run there is no interval, and none is invented.

const T_95 = [0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228] as const;

export interface Interval {
  readonly estimate: number;
  readonly low: number;
  readonly high: number;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  if (sorted.length === 0) return 0;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The mean with its 95 % interval; undefined ends where there are fewer than two values. */
export function meanInterval(values: readonly number[]): Interval {
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  if (values.length < 2) return { estimate: mean, low: Number.NaN, high: Number.NaN };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  const half = (T_95[values.length - 1] ?? 1.96) * Math.sqrt(variance / values.length);
  return { estimate: mean, low: mean - half, high: mean + half };
}

/** Runs alternate between targets, so ratios are taken run by run and averaged in logarithms. */
export function ratioInterval(values: readonly number[], base: readonly number[]): Interval {
  const logs = values.slice(0, base.length).map((value, index) => Math.log(value / base[index]!));
  const { estimate, low, high } = meanInterval(logs.filter(Number.isFinite));
  return { estimate: Math.exp(estimate), low: Math.exp(low), high: Math.exp(high) };
}
