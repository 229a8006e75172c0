/**
 * Which part may import which (STYLE: one way through). `npx depcruise services shared loadtest --config .dependency-cruiser.cjs`
 */

// Without it dependency-cruiser reads no TypeScript at all, finds nothing wrong and only warns.
require.resolve('@swc/core');

const TEST = '\\.(?:test|contract)\\.ts$|^shared/testkit/|^services/[^/]+/testkit/|^services/cli/e2e/';
/** Started by somebody: commands, library entries, load runs. */
const ENTRY =
  '^services/(?:[^/]+/main|agent/index)\\.ts$|^loadtest/|^deploy/healthcheck\\.mjs$|\\.config\\.[cm]?[jt]s$';

/** The ordered start of a core node, which serves the dashboard's API on a port of its own. */
const NODE = '^services/core/node\\.ts$';

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'no-cycle',
      comment: 'Two files that need each other are one file, or need a third.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'not-resolvable',
      comment:
        'The import leads nowhere. Without this rule a resolver that does not understand TypeScript would pass all.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'shared-knows-no-service',
      severity: 'error',
      from: { path: '^shared/' },
      to: { path: '^(?:services|loadtest)/' },
    },
    {
      name: 'services-meet-in-shared',
      comment: 'Core, agent, dashboard and edge-sync share code in shared/ only; the command line starts all of them.',
      severity: 'error',
      from: { path: '^services/([^/]+)/', pathNot: ['^services/cli/', NODE, TEST] },
      to: { path: '^services/', pathNot: '^services/$1/' },
    },
    {
      name: 'node-starts-only-the-dashboard',
      severity: 'error',
      from: { path: NODE },
      to: { path: '^services/', pathNot: ['^services/core/', '^services/dashboard/api/'] },
    },
    {
      name: 'services-do-not-know-the-command-line',
      severity: 'error',
      from: { path: '^services/', pathNot: '^services/cli/' },
      to: { path: '^services/cli/' },
    },
    {
      name: 'protocol-stands-alone',
      comment:
        'The wire protocol is the same for every implementation; it may know the error numbers and nothing else.',
      severity: 'error',
      from: { path: '^shared/protocol/', pathNot: TEST },
      to: { path: '^(?:shared|services)/', pathNot: ['^shared/protocol/', '^shared/errors/'] },
    },
    {
      name: 'errors-stand-alone',
      severity: 'error',
      from: { path: '^shared/errors/', pathNot: TEST },
      to: { pathNot: '^shared/errors/' },
    },
    {
      name: 'registry-interface-knows-no-store',
      comment: 'Callers see registry.ts and names.ts; memory/ and redis/ are chosen in one place, at the start.',
      severity: 'error',
      from: { path: '^shared/registry/[^/]+\\.ts$', pathNot: TEST },
      to: { path: '^shared/registry/(?:memory|redis)/' },
    },
    {
      name: 'directory-interface-knows-no-store',
      comment: 'As with the registry: memory/ and redis/ are chosen in one place, at the start.',
      severity: 'error',
      from: { path: '^shared/directory/[^/]+\\.ts$', pathNot: TEST },
      to: { path: '^shared/directory/(?:memory|redis)/' },
    },
    {
      name: 'no-test-in-the-product',
      severity: 'error',
      from: { path: '^(?:services|shared)/', pathNot: TEST },
      to: { path: TEST },
    },
    {
      name: 'no-test-imports-a-test',
      comment: 'A test file that imports another runs its tests twice.',
      severity: 'error',
      from: {},
      to: { path: '\\.test\\.ts$' },
    },
    {
      name: 'no-development-package-in-the-product',
      severity: 'error',
      from: { path: '^(?:services|shared)/', pathNot: [TEST, '\\.config\\.[cm]?[jt]s$'] },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'no-unlisted-package',
      comment: 'It works only as long as another package brings it along.',
      severity: 'error',
      from: { path: '^(?:services|shared)/' },
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
    {
      name: 'no-orphan',
      comment: 'Nothing imports it and nobody starts it: it is left over.',
      severity: 'error',
      from: { orphan: true, pathNot: [TEST, ENTRY, '\\.d\\.ts$'] },
      to: {},
    },
  ],
  options: {
    // The native TypeScript compiler (7) has no API for other tools. swc reports `import type` and `import()` as well.
    parser: 'swc',
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^dist/' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
      extensions: ['.ts', '.tsx', '.js', '.mjs', '.cjs', '.json'],
    },
  },
};
