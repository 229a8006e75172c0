import { createHash } from 'node:crypto';
import { errorsOf, jsonSchema } from './openapi.ts';
import type { ApiRoute } from './route.ts';

const STYLE =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}' +
  'h3{margin-top:2.5rem}code,pre{font-family:ui-monospace,monospace}pre{overflow:auto;padding:.75rem;border:1px solid #8886}';

/** The page loads nothing and runs nothing. */
export const REFERENCE_CSP = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`;

/** The reference of the API for people, from the same routes as the OpenAPI document. */
export function referencePage(routes: readonly ApiRoute[], version: string): string {
  const sections = [...Map.groupBy(routes, ({ tag }) => tag)].map(
    ([tag, of]) => `<h2>${escapeHtml(tag)}</h2>${of.map(section).join('')}`,
  );
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Culvert API</title>
<meta name="viewport" content="width=device-width"><style>${STYLE}</style></head><body><h1>Culvert API ${escapeHtml(version)}</h1>
<p>Send <code>Authorization: Bearer TOKEN</code>; make a token with <code>culvert token create --role viewer</code>.
The same as <a href="/api/v1/openapi.json">OpenAPI 3.1</a>. Times and durations are milliseconds.</p>${sections.join('')}</body></html>`;
}

function section(route: ApiRoute): string {
  const { method, path, summary, description, role, scope, query, body, answer } = route;
  const errors = [...errorsOf(route)].map(([status, codes]) => `${status} ${codes.join(', ')}`).join('; ');
  const schemas = [
    ...(query === undefined ? [] : [schemaOf('Query', jsonSchema(query))]),
    ...(body === undefined ? [] : [schemaOf('Body', jsonSchema(body))]),
    schemaOf('Answer', jsonSchema(answer)),
  ];
  return `<h3><code>${method} /api/v1${escapeHtml(path)}</code></h3><p>${escapeHtml(summary)}. ${escapeHtml(description ?? '')}
Role: ${role}${scope === 'cluster' ? ', not for tokens of one account' : ''}.</p>${schemas.join('')}<p>Errors: ${escapeHtml(errors)}.</p>`;
}

function schemaOf(title: string, schema: object): string {
  return `<details><summary>${title}</summary><pre>${escapeHtml(JSON.stringify(schema, null, 1))}</pre></details>`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
