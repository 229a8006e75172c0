import { listenAddress } from '../../shared/config/net-values.ts';
import { option } from '../../shared/config/option.ts';
import { defineSchema } from '../../shared/config/schema.ts';

/** `culvert demo`: the demonstration service alone. */
export const DEMO_SCHEMA = defineSchema({
  service: 'demo',
  envPrefix: undefined,
  options: {
    addr: option({ type: listenAddress(), default: '127.0.0.1:3000', help: 'Where the service listens.' }),
  },
  checks: [],
});
