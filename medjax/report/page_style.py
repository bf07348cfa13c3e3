"""Style sheet of a report: for screens, phones, dark rooms and paper."""

STYLE = """
:root { --ink: #1d2329; --quiet: #5b6570; --line: #dfe3e7; --page: #fff; --accent: #1f5f8b; --notice: #fbe9c6; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e3e6e8; --quiet: #98a2ab; --line: #343b42; --page: #15191d; --accent: #7fb6db; --notice: #4a3a12; }
}
* { box-sizing: border-box; }
html { font: 17px/1.6 Charter, "Bitstream Charter", "Iowan Old Style", Cambria, Georgia, serif; }
body { margin: 0; padding: 3.5rem 1.25rem; background: var(--page); color: var(--ink); }
main, footer { max-width: 46rem; margin: 0 auto; }
h1, h2, th, figcaption, footer, .notice { font-family: system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 1.2rem; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 0.6rem; font-size: 1.2rem; line-height: 1.3; color: var(--accent); }
p { margin: 0 0 0.9rem; hyphens: auto; overflow-wrap: break-word; }
header { padding-bottom: 0.6rem; border-bottom: 1px solid var(--line); }
.notice { padding: 0.6rem 0.9rem; background: var(--notice); border-radius: 4px; font-size: 0.9rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; min-width: 50%; font-size: 0.88rem; font-variant-numeric: tabular-nums lining-nums; }
figcaption { margin: 0.6rem 0; font-size: 0.8rem; line-height: 1.45; color: var(--quiet); overflow-wrap: break-word; }
th, td { padding: 0.32rem 0.55rem; text-align: left; vertical-align: baseline; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
th { font-size: 0.78rem; font-weight: 600; border-bottom: 1.5px solid var(--ink); }
td { border-bottom: 1px solid var(--line); }
.number { text-align: right; white-space: nowrap; }
figure { position: relative; margin: 1.6rem 0; }
img { display: block; max-width: 100%; height: auto; padding: 0.5rem; background: #fff; border-radius: 4px; }
.zoom { position: absolute; opacity: 0; pointer-events: none; }
.zoom + label { display: block; cursor: zoom-in; }
.zoom:focus-visible + label img { outline: 3px solid var(--accent); }
@media screen {
  .zoom:checked + label { position: fixed; inset: 0; z-index: 1; overflow: auto; cursor: zoom-out; }
  .zoom:checked + label { background: #0d1014; display: grid; place-items: safe center; }
  .zoom:checked + label img { max-width: none; padding: 0; border-radius: 0; }
  details:not([open]) + dl { display: none; }
}
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--line); }
footer { font-size: 0.78rem; color: var(--quiet); }
code, dl { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.74rem; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: 0.15rem 1.5rem; margin: 0.6rem 0 1rem; }
dt, dd { margin: 0; overflow-wrap: anywhere; }
@media print {
  body { padding: 0; }
  h2 { break-after: avoid; }
  figure > label, tr, dt, dd { break-inside: avoid; }
  .wide { overflow: visible; }
  table { max-width: 100%; font-size: 0.7rem; }
  td { overflow-wrap: break-word; }
  .notice { border: 1.5px solid; }
}
"""
