// Bundles the scripts and styles of all apps into static-build/galley/. Run by `npm run build`.

import { readFileSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const outdir = join(root, "static-build/galley");
const common = join(root, "apps/common/static/common");

const families = [
  { name: "Inter Variable", folder: "inter", weights: "100 900", styles: ["normal"] },
  { name: "Newsreader Variable", folder: "newsreader", weights: "200 800", styles: ["normal", "italic"] },
];
const subsets = ["latin", "latin-ext"];

// The packages carry faces for every script; ours are the two that the interface needs. Other
// scripts, CJK among them, fall back to the reader's own fonts.
function fontFaces() {
  return families
    .flatMap((family) => {
      const folder = join(root, "node_modules/@fontsource-variable", family.folder);
      const ranges = JSON.parse(readFileSync(join(folder, "unicode.json"), "utf8"));
      return subsets.flatMap((subset) =>
        family.styles.map((style) => fontFace(family, folder, subset, style, ranges[subset])),
      );
    })
    .join("\n");
}

function fontFace(family, folder, subset, style, range) {
  const file = join(folder, "files", `${family.folder}-${subset}-wght-${style}.woff2`);
  return `@font-face {
  font-family: "${family.name}"; font-style: ${style}; font-weight: ${family.weights}; font-display: swap;
  src: url("${file}") format("woff2"); unicode-range: ${range};
}`;
}

const fonts = {
  name: "fonts",
  setup(build) {
    build.onResolve({ filter: /^galley:fonts$/ }, ({ path }) => ({ path, namespace: "fonts" }));
    build.onLoad({ filter: /.*/, namespace: "fonts" }, () => ({ contents: fontFaces(), loader: "css", resolveDir: root }));
  },
};

const shared = {
  outdir,
  bundle: true,
  minify: true,
  target: ["chrome111", "firefox115", "safari16.4"],
  logLevel: "info",
};
const builds = [
  // Runs before the first paint, so it is a plain script; the pages' scripts are modules that share their parts.
  { ...shared, entryPoints: { theme: join(common, "js/theme.js") }, format: "iife" },
  {
    ...shared,
    entryPoints: {
      app: join(common, "js/app.js"),
      desk: join(root, "apps/drafts/static/drafts/desk.js"),
      review: join(root, "apps/reviews/static/reviews/review.js"),
      training: join(root, "apps/tuning/static/tuning/training.js"),
    },
    format: "esm",
    splitting: true,
    chunkNames: "parts/[name]-[hash]",
  },
  {
    ...shared,
    entryPoints: { styles: join(root, "platform/deploy/styles.css") },
    loader: { ".woff2": "file" },
    assetNames: "fonts/[name]-[hash]",
    plugins: [fonts],
  },
];

rmSync(outdir, { recursive: true, force: true });
for (const options of builds) {
  if (process.argv.includes("--watch")) await (await esbuild.context(options)).watch();
  else await esbuild.build(options);
}
