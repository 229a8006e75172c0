import type { Socket } from 'node:net';

/**
 * Breaks a TCP connection with RST, so that it cannot pass for an orderly end. After `end` it is closed as it is: libuv allows
 * no reset while a shutdown is pending (uv_tcp_close_reset), and node then leaves the handle open for good: a descriptor that
 * is never given back, and a process that spins when it should exit (Node 26.10).
 */
export function resetSocket(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}
