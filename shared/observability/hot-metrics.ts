import {
  Counter,
  Histogram,
  type HistogramConfiguration,
  type MetricObjectWithValues,
  type MetricValueWithName,
  type Registry,
} from 'prom-client';

/**
 * Metrics for code that runs once a request or frame. prom-client finds a series by sorting and joining its labels at each
 * event; here the series are fixed beforehand and an event is an addition in an array. prom-client writes the text at a scrape.
 */

export interface HotMetricOptions<L extends string> {
  readonly name: string;
  readonly help: string;
  readonly labelNames?: readonly L[];
  /** The labels of each series; an event names its series by the index here. Default: one series without labels. */
  readonly series?: readonly Readonly<Record<L, string>>[];
}

export interface HotHistogramOptions<L extends string> extends HotMetricOptions<L> {
  /** Upper bounds of the buckets, rising, without +Inf. */
  readonly buckets: readonly number[];
}

/** A counter with a fixed list of series. */
export class HotCounter<L extends string = never> {
  readonly #values: Float64Array;

  constructor(registry: Registry, options: HotMetricOptions<L>) {
    const series = seriesOf(options);
    const values = new Float64Array(series.length);
    this.#values = values;
    new Counter<string>({
      ...baseOf(registry, options),
      collect() {
        this.reset();
        for (const [at, labels] of series.entries()) this.inc(labels, values[at] ?? 0);
      },
    });
  }

  /** `by` must not be negative. A series that does not exist is ignored. */
  inc(series = 0, by = 1): void {
    this.#values[series] = (this.#values[series] ?? 0) + by;
  }

  value(series = 0): number {
    return this.#values[series] ?? 0;
  }
}

/** A histogram with a fixed list of series. */
export class HotHistogram<L extends string = never> {
  readonly #bounds: Float64Array;
  /** For each series one count for each bucket and one for what lies above all. */
  readonly #counts: Float64Array;
  readonly #sums: Float64Array;
  readonly #width: number;

  constructor(registry: Registry, options: HotHistogramOptions<L>) {
    const series = seriesOf(options);
    this.#bounds = Float64Array.from(options.buckets);
    this.#width = options.buckets.length + 1;
    this.#counts = new Float64Array(series.length * this.#width);
    this.#sums = new Float64Array(series.length);
    new ArrayHistogram({ ...baseOf(registry, options), buckets: [...options.buckets] }, () =>
      series.flatMap((labels, at) => this.#export(options.name, labels, at)),
    );
  }

  /** A negative value or NaN is ignored, as it would spoil the sum for good; so is a series that does not exist. */
  observe(series: number, value: number): void {
    if (!(value >= 0)) return;
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > (bounds[bucket] as number)) bucket += 1;
    const at = series * this.#width + bucket;
    this.#counts[at] = (this.#counts[at] as number) + 1;
    this.#sums[series] = (this.#sums[series] as number) + value;
  }

  /** Observations of all series together: for each bucket, and last for what lies above all. Not cumulative. */
  counts(): Float64Array {
    const sum = new Float64Array(this.#width);
    for (const [at, count] of this.#counts.entries()) {
      const bucket = at % this.#width;
      sum[bucket] = (sum[bucket] ?? 0) + count;
    }
    return sum;
  }

  #export(name: string, labels: Readonly<Record<string, string>>, series: number): MetricValueWithName<string>[] {
    const values: MetricValueWithName<string>[] = [];
    let total = 0;
    for (let bucket = 0; bucket < this.#width; bucket += 1) {
      total += this.#counts[series * this.#width + bucket] ?? 0;
      const le = this.#bounds[bucket] ?? '+Inf';
      values.push({ metricName: `${name}_bucket`, labels: { le, ...labels }, value: total });
    }
    values.push({ metricName: `${name}_sum`, labels, value: this.#sums[series] ?? 0 });
    values.push({ metricName: `${name}_count`, labels, value: total });
    return values;
  }
}

/** A prom-client histogram whose values come from elsewhere: its own have no way in but `observe`. */
class ArrayHistogram extends Histogram<string> {
  readonly #values: () => MetricValueWithName<string>[];
  /** Tells name, help and type; `super.get()` cannot, as it asks `getForPromString` for them. */
  readonly #description: Histogram<string>;

  constructor(options: HistogramConfiguration<string>, values: () => MetricValueWithName<string>[]) {
    super(options);
    this.#values = values;
    this.#description = new Histogram({ ...options, registers: [] });
  }

  override async get(): Promise<MetricObjectWithValues<MetricValueWithName<string>>> {
    return { ...(await this.#description.get()), values: this.#values() };
  }

  /** The registry writes what this gives rather than `get`; prom-client's types do not tell of it. */
  getForPromString(): Promise<MetricObjectWithValues<MetricValueWithName<string>>> {
    return this.get();
  }
}

function baseOf(registry: Registry, options: HotMetricOptions<string>) {
  return { name: options.name, help: options.help, labelNames: [...(options.labelNames ?? [])], registers: [registry] };
}

function seriesOf<L extends string>(options: HotMetricOptions<L>): readonly Readonly<Record<string, string>>[] {
  return options.series ?? [{}];
}
