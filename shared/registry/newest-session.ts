import type { SessionRef } from './registry.ts';

/** The endpoint of the newest session. Sessions of two agents may have the same epoch; then the id decides. */
export function ofNewestSession<T>(endpoints: readonly T[], sessionOf: (endpoint: T) => SessionRef): T | undefined {
  return endpoints.reduce<T | undefined>((newest, endpoint) => {
    return newest === undefined || isNewer(sessionOf(endpoint), sessionOf(newest)) ? endpoint : newest;
  }, undefined);
}

function isNewer(a: SessionRef, b: SessionRef): boolean {
  return a.epoch > b.epoch || (a.epoch === b.epoch && a.id > b.id);
}
