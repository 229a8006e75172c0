import { type Address, formatAddress } from '../../shared/config/net-values.ts';
import { startDemoService } from './demo-service.ts';
import { stopSignal } from './stop-signal.ts';

/** `culvert demo`: the demonstration service alone, for an agent beside it. */
export async function run(address: Address): Promise<void> {
  const service = await startDemoService(address);
  process.stdout.write(`The demonstration service listens on ${formatAddress({ ...address, port: service.port })}.\n`);
  await stopSignal();
  service.close();
}
