import { collectDefaultMetrics, Registry } from 'prom-client';

export { HotCounter, HotHistogram } from './hot-metrics.ts';
export { topN } from './top-n.ts';

let processMetrics: Registry | undefined;

/**
 * A registry that has the metrics of the process already: CPU, memory, garbage collection, event-loop lag, open handles.
 * Their observers are started once for the process, however many nodes run in it.
 */
export function createMetricsRegistry(): Registry {
  if (processMetrics === undefined) {
    processMetrics = new Registry();
    collectDefaultMetrics({ register: processMetrics });
  }
  const registry = new Registry();
  for (const { name } of processMetrics.getMetricsAsArray()) {
    const metric = processMetrics.getSingleMetric(name);
    if (metric !== undefined) registry.registerMetric(metric);
  }
  return registry;
}
