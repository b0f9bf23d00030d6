// Loss over steps: every step faintly, its running mean, and the held-back loss as points.

import uPlot from "uplot";

const SMOOTHING = 0.8;
const HEIGHT = 260;
const POINT = 9;
const WHOLE_STEPS = [1, 2, 5].flatMap((digit) => [1, 10, 100, 1000, 10_000].map((power) => digit * power)).sort((a, b) => a - b);

export class LossChart {
  constructor(box) {
    this.box = box;
    this.plot = null;
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(box);
    new MutationObserver(() => this.redraw()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  draw(steps, evals) {
    this.data = aligned(steps, evals);
    if (this.plot) this.plot.setData(this.data);
    else this.plot = new uPlot(this.options(), this.data, this.box);
  }

  // A canvas does not follow the theme by itself.
  redraw() {
    if (!this.plot) return;
    this.plot.destroy();
    this.plot = new uPlot(this.options(), this.data, this.box);
  }

  size() {
    return { width: this.box.clientWidth, height: HEIGHT };
  }

  options() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const { labelStep, labelLoss, labelSmooth, labelEval } = this.box.dataset;
    const font = `12px ${colour("--font-ui")}`;
    const axis = { font, stroke: colour("--ink-3"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false } };
    return {
      ...this.size(),
      cursor: { drag: { x: false, y: false } },
      legend: { live: false },
      scales: { x: { time: false } },
      padding: [null, POINT, null, null],
      axes: [{ ...axis, grid: { show: false }, incrs: WHOLE_STEPS }, { ...axis, size: 48, gap: POINT }],
      series: [
        { label: labelStep },
        { label: labelLoss, stroke: colour("--rule-strong"), width: 1, points: { show: false } },
        { label: labelSmooth, stroke: colour("--accent"), width: 2, points: { show: false } },
        { label: labelEval, stroke: colour("--del"), width: 0, paths: () => null, points: { show: true, size: POINT, fill: colour("--del") } },
      ],
    };
  }
}

function aligned(steps, evals) {
  const held = new Map(evals.map(({ step, loss }) => [step, loss]));
  const losses = new Map(steps.map(({ step, loss }) => [step, loss]));
  const xs = [...new Set([...losses.keys(), ...held.keys()])].sort((a, b) => a - b);
  let mean = null;
  const smooth = xs.map((x) => {
    if (!losses.has(x)) return null;
    mean = mean === null ? losses.get(x) : SMOOTHING * mean + (1 - SMOOTHING) * losses.get(x);
    return mean;
  });
  return [xs, xs.map((x) => losses.get(x) ?? null), smooth, xs.map((x) => held.get(x) ?? null)];
}
