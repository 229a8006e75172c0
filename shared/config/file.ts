import { readFileSync, statSync } from 'node:fs';
import { extname } from 'node:path';
import { parseDocument } from 'yaml';

const MAX_FILE_BYTES = 1024 * 1024;

/** The entries of a JSON or YAML file (by extension) in order, or one line that says why it cannot be used. */
export function readConfigFile(path: string): readonly (readonly [string, unknown])[] | string {
  const extension = extname(path).toLowerCase();
  if (!['.json', '.yaml', '.yml'].includes(extension)) {
    return `the configuration file ${path} must end in .yaml, .yml or .json`;
  }
  let text: string;
  try {
    if (statSync(path).size > MAX_FILE_BYTES) return `the configuration file ${path} is larger than 1MiB`;
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    return `the configuration file ${path} ${missing ? 'does not exist' : 'cannot be read'}`;
  }
  const content = extension === '.json' ? parseJson(text) : parseYaml(text);
  if ('problem' in content) return `the configuration file ${path} is not valid: ${content.problem}`;
  if (content.value === null || content.value === undefined) return [];
  if (typeof content.value !== 'object' || Array.isArray(content.value)) {
    return `the configuration file ${path} must be a map of options and values`;
  }
  return Object.entries(content.value);
}

type Parsed = { readonly value: unknown } | { readonly problem: string };

function parseJson(text: string): Parsed {
  try {
    return { value: JSON.parse(text) };
  } catch {
    // JSON.parse's message quotes the text around the fault, which may be a secret. YAML 1.2 takes in JSON, and its
    // parser tells line and column.
    const parsed = parseYaml(text);
    return 'problem' in parsed ? parsed : { problem: 'it is YAML, not JSON: name it .yaml' };
  }
}

function parseYaml(text: string): Parsed {
  const document = parseDocument(text, { prettyErrors: false, uniqueKeys: true });
  const fault = document.errors[0];
  if (fault !== undefined) {
    const before = text.slice(0, fault.pos[0]).split('\n');
    const column = (before.at(-1)?.length ?? 0) + 1;
    return { problem: `line ${before.length}, column ${column}: ${fault.message.split('\n')[0]}` };
  }
  try {
    return { value: document.toJS() };
  } catch {
    return { problem: 'its aliases cannot be resolved' };
  }
}
