"""Style sheet and scripts of a report."""

CSS = """
:root { color-scheme: light; --ink: #1d2733; --soft: #5b6875; --line: #dde3ea; --tint: #f5f7fa;
  --accent: #0072b2; --warn: #fff6e0; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
header, main, footer { max-width: 1080px; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.25rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 75ch; }
.subtitle, figcaption, footer { color: var(--soft); }
figcaption { font-size: .875rem; max-width: 85ch; }
nav { display: flex; flex-wrap: wrap; margin: 1rem 0 0; font-size: .875rem; }
nav a { color: var(--accent); margin-right: 1rem; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
.numbers { display: grid; gap: .75rem; margin: 1.25rem 0 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.numbers div { background: var(--tint); border-radius: .5rem; padding: .6rem .9rem; }
.numbers dt { color: var(--soft); font-size: .8rem; }
.numbers dd { margin: 0; font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere; }
figure { margin: 1rem 0 1.5rem; }
img { display: block; max-width: 100%; height: auto; margin-bottom: .35rem; }
.figures { display: flex; flex-wrap: wrap; gap: 0 1.25rem; align-items: flex-start; }
.figures figure { max-width: 100%; display: table; }
.figures figcaption { display: table-caption; caption-side: bottom; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .75rem 0 1rem; font-size: .9rem; }
caption { text-align: left; color: var(--soft); font-size: .875rem; padding-bottom: .35rem; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.best td, tr.best th { background: #e8f3fa; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 2rem; align-items: center; max-width: none; }
.controls select { font: inherit; padding: .15rem .4rem; margin-left: .35rem; }
.controls input { vertical-align: middle; }
.controls input.gene { font: inherit; padding: .1rem .4rem; margin-left: .35rem; width: 11rem; }
.canvas { min-height: 620px; overflow: hidden; border: 1px solid var(--line); border-radius: .25rem;
  padding: .25rem; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin: .6rem 0; font-size: .875rem;
  align-items: center; }
.legend[hidden] { display: none; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%;
  margin-right: .35rem; vertical-align: -.05rem; }
.legend .ramp { width: 14rem; height: .8rem; border-radius: .2rem; margin: 0 -.6rem; }
.drawn, .thinned { font-size: .875rem; color: var(--soft); }
.warnings { background: var(--warn); border-left: 4px solid #e69f00; border-radius: .25rem;
  padding: .5rem 1rem; margin: 1rem 0; }
.warnings ul { margin: .25rem 0; padding-left: 1.2rem; }
details summary { cursor: pointer; color: var(--accent); }
section > details > summary { border-top: 1px solid var(--line); margin-top: 1.25rem;
  padding-top: .75rem; }
summary h2 { display: inline; border: 0; margin: 0; padding: 0; }
footer { margin-top: 3rem; padding-bottom: 2rem; font-size: .8rem; }
@media print { nav { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""

CONTROLS = """
const MOST_OUTLINES = 4000;  // in view at once
for (const box of document.querySelectorAll(".scatter")) {
  const item = JSON.parse(box.querySelector("script").textContent);
  Bokeh.embed.embed_item(item).then(() => {
    const doc = Bokeh.documents[Bokeh.documents.length - 1];
    const glyph = doc.get_model_by_name("cells").glyph;
    const select = box.querySelector("select");
    const source = doc.get_model_by_name("cells").data_source;
    const shapes = doc.get_model_by_name("outlines");
    const packed = box.querySelector("script.outlines");
    const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
    const outlines = packed === null ? null : JSON.parse(packed.textContent);
    const ptr = outlines && new Uint32Array(bytes(outlines.ptr));
    const xy = outlines && new Uint16Array(bytes(outlines.xy));
    const at = (k, axis) => outlines.low[axis] + outlines.step * xy[2 * k + axis];
    const polygon = (i, axis) => {
      if (ptr[i] < ptr[i + 1])
        return Array.from({length: ptr[i + 1] - ptr[i]}, (_, k) => at(ptr[i] + k, axis));
      const turn = (k) => [Math.cos, Math.sin][axis](k * Math.PI / 8) * glyph.radius.value;
      return Array.from({length: 16}, (_, k) => source.data["xy"[axis]][i] + turn(k));
    };
    const opacity = box.querySelector("input[type=range]");
    const plot = doc.get_model_by_name("plot");
    let painted = "c0", seen = [];
    const fade = () => {
      const value = opacity ? Number(opacity.value) : 1;
      glyph.fill_alpha = {value: seen.length ? 0 : value};
      shapes.glyph.fill_alpha = {value};
    };
    const fill = () => {  // the cells in view by their outlines, where they are few
      if (outlines === null) return;
      const {x, y} = source.data;
      const [x0, x1] = [plot.x_range.start, plot.x_range.end].sort((a, b) => a - b);
      const [y0, y1] = [plot.y_range.start, plot.y_range.end].sort((a, b) => a - b);
      seen = [];
      for (let i = 0; i < x.length && seen.length <= MOST_OUTLINES; i++)
        if (x[i] >= x0 && x[i] <= x1 && y[i] >= y0 && y[i] <= y1) seen.push(i);
      if (seen.length > MOST_OUTLINES) seen = [];
      const values = source.data[painted];
      shapes.data_source.data = {
        xs: seen.map((i) => polygon(i, 0)),
        ys: seen.map((i) => polygon(i, 1)),
        value: seen.map((i) => values[i]),
      };
      fade();
    };
    const paint = (field, column) => {
      const transform = doc.get_model_by_name(`mapper ${column}`);
      glyph.fill_color = {field, transform};
      shapes.glyph.fill_color = {field: "value", transform};
      painted = field;
      fill();
      for (const legend of box.querySelectorAll(".legend"))
        legend.hidden = legend.dataset.column !== column;
    };
    const gene = box.querySelector(".gene");
    const genes = JSON.parse(box.querySelector("script.genes").textContent);
    const names = new Map(Object.keys(genes).map((name) => [name.toLowerCase(), name]));
    const choose = () => { gene.value = ""; paint(`c${select.value}`, select.value); };
    const choose_gene = () => {
      const name = names.get(gene.value.trim().toLowerCase());
      if (name === undefined) return;
      const [data, low, high] = genes[name];
      const values = Float32Array.from(atob(data), (letter) => letter.charCodeAt(0));
      source.data = {...source.data, gene: values};
      box.querySelector(".low").textContent = `${name}: ${low.toPrecision(3)}`;
      box.querySelector(".high").textContent = high.toPrecision(3);
      paint("gene", "gene");
    };
    select.addEventListener("change", choose);
    gene.addEventListener("input", choose_gene);
    choose();  // a browser may come back with another choice than the first
    if (opacity) opacity.addEventListener("input", fade);
    fade();
    let waiting = 0;
    for (const range of [plot.x_range, plot.y_range])
      range.change.connect(() => { clearTimeout(waiting); waiting = setTimeout(fill, 80); });
    const drawn = box.querySelector(".drawn");
    doc.on_event("selectiongeometry", (_, {geometry, final}) => {
      if (!final || geometry.type !== "poly") return;
      const ring = Array.from(geometry.x, (x, i) => [x, geometry.y[i]]);
      ring.push(ring[0]);
      const region = {type: "Feature", properties: {unit: "µm"},
        geometry: {type: "Polygon", coordinates: [ring]}};
      const link = document.createElement("a");
      link.href = `data:application/geo+json,${encodeURIComponent(JSON.stringify(region))}`;
      link.download = "region.geojson";
      link.textContent = "Save the outline";
      const command = document.createElement("code");
      command.textContent = "spatiagraph search … --region region.geojson";
      drawn.replaceChildren(link, ", then find niches like those inside: ", command);
    });
    box.dataset.ready = "yes";
  });
}
"""
