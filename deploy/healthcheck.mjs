// Exits with 0 when a URL answers 200: what HEALTHCHECK runs, since the image has no curl.
//
//   node healthcheck.mjs [URL]      default: the readiness of a core node in the same container

const url = process.argv[2] ?? 'http://127.0.0.1:9000/health/ready';
try {
  const response = await fetch(url, { signal: AbortSignal.timeout(2500) });
  if (response.status !== 200) fail(`${url} says ${response.status}: ${await response.text()}`);
} catch (error) {
  fail(`${url} does not answer: ${error.cause?.message ?? error.message}`);
}

function fail(why) {
  process.stderr.write(`${why}\n`);
  process.exit(1);
}
