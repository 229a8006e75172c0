/** What an error page shows. Texts are escaped here. */
export interface ErrorPage {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly requestId: string;
}

const STYLE = `:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b1f24;--dim:#667080;--line:#e3e6ea;--hue:#3056d3}
@media(prefers-color-scheme:dark){:root{--bg:#111418;--card:#191d23;--ink:#e8ebef;--dim:#98a2b0;--line:#2a3038;--hue:#8ea8ff}}
*{box-sizing:border-box}body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--bg);
color:var(--ink);font:16px/1.55 system-ui,sans-serif}main{width:100%;max-width:32rem;padding:2.25rem;background:var(--card);
border:1px solid var(--line);border-radius:14px}p{margin:.4rem 0}h1{margin:.2rem 0 .6rem;font-size:1.35rem;line-height:1.3}
.s{color:var(--hue);font-weight:650;letter-spacing:.04em}dl{display:grid;grid-template-columns:auto 1fr;gap:.35rem 1rem;
margin:1.5rem 0 0;padding-top:1.1rem;border-top:1px solid var(--line);font-size:.875rem}dt{color:var(--dim)}
dd{margin:0;font-family:ui-monospace,monospace;overflow-wrap:anywhere}`;

/** A page without scripts or outside parts, in the visitor's light or dark scheme. */
export function renderErrorPage(page: ErrorPage): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex"><title>${page.status} ${escapeHtml(page.code)}</title><style>${STYLE}</style></head>
<body><main><p class="s">${page.status}</p><h1>${escapeHtml(page.message)}</h1>
<dl><dt>Code</dt><dd>${escapeHtml(page.code)}</dd><dt>Request</dt><dd>${escapeHtml(page.requestId)}</dd></dl>
</main></body></html>
`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
