import type { ClusterCalls } from '../../../shared/control/calls.ts';
import type { Registry } from '../../../shared/registry/registry.ts';
import type { ClusterView } from './cluster-view.ts';

/** What the routes work on. */
export interface ApiContext {
  readonly registry: Registry;
  readonly calls: ClusterCalls;
  readonly view: ClusterView;
  /** The URL that visitors use for a tunnel. */
  readonly publicUrl: (name: string) => string;
}
