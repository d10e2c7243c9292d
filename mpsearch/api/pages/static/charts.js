// Charts from the data that stands beside each; every one has a table, too.
"use strict";

const reading = getComputedStyle(document.documentElement);
const colour = (name) => reading.getPropertyValue(`--${name}`).trim();
const font = () => getComputedStyle(document.body).fontFamily;

const tooltip = () => ({
  renderMode: "richText", // drawn, not HTML with styles of its own
  confine: true,
  backgroundColor: colour("raised"),
  borderColor: colour("line"),
  textStyle: { color: colour("ink"), fontSize: 12.5, fontFamily: font() },
  formatter: (point) => (point.data && point.data.text) || "",
});

// An axis from 0 to 100 percent whose ticks the server has placed and worded.
const axis = (ticks, name, more) => {
  const words = new Map(ticks);
  return {
    type: "value", min: 0, max: 100, name, nameGap: 30, nameLocation: "middle",
    nameTextStyle: { color: colour("dim"), fontSize: 12.5 },
    axisLine: { show: true, lineStyle: { color: colour("line") } },
    axisTick: { show: false }, splitLine: { show: false },
    axisLabel: {
      color: colour("dim"), fontSize: 12, hideOverlap: true,
      customValues: ticks.map((tick) => tick[0]), formatter: (at) => words.get(at) ?? "",
    },
    ...more,
  };
};

const grid = (across, upward) => ({
  silent: true, symbol: "none", animation: false, label: { show: false },
  lineStyle: { color: colour("line"), type: "solid", width: 1 },
  data: [...across.map((tick) => ({ xAxis: tick[0] })), ...upward.map((tick) => ({ yAxis: tick[0] }))],
});

const place = () => {
  const told = document.getElementById("chosen-place");
  return told ? JSON.parse(told.textContent) : { pick: "", place: null };
};

const MARKS = {
  front: () => ({ symbol: "circle", symbolSize: 12, itemStyle: { color: colour("dim") } }),
  candidate: () => ({ symbol: "circle", symbolSize: 13, itemStyle: { color: colour("accent"), opacity: 0.75 } }),
  reference: () => ({ symbol: "rect", symbolSize: 12, itemStyle: { color: colour("raised"), borderColor: colour("ink"), borderWidth: 2 } }),
  returned: () => ({ symbol: "circle", symbolSize: 19, itemStyle: { color: colour("accent"), borderColor: colour("paper"), borderWidth: 2 } }),
};

const front = (data) => {
  const points = (kind) => data.points.filter((point) => point.kind === kind);
  const stairs = points("front").map((point) => point.place).sort((one, other) => one[0] - other[0]);
  if (stairs.length) stairs.push([100, stairs[stairs.length - 1][1]]);
  const budget = data.limit && {
    silent: true, symbol: "none", animation: false,
    lineStyle: { color: colour("accent"), type: "dashed", width: 2 },
    label: {
      formatter: data.limit[1], color: colour("accent"), fontWeight: 600, fontFamily: font(),
      position: "insideEndTop", rotate: 0, align: data.limit[0] > 60 ? "right" : "left",
      padding: data.limit[0] > 60 ? [0, 6, 0, 0] : [0, 0, 0, 6], verticalAlign: "top",
    },
    data: [{ xAxis: data.limit[0] }],
  };
  const chosen = place();
  return {
    grid: { left: 66, right: 18, top: 14, bottom: 48 },
    tooltip: tooltip(),
    xAxis: axis(data.across, data.titles[0]),
    yAxis: axis(data.upward, data.titles[1], { nameGap: 50 }),
    series: [
      { type: "line", step: "end", data: stairs, symbol: "none", silent: true, lineStyle: { color: colour("dim"), width: 1.75 }, markLine: grid(data.across, data.upward) },
      { type: "line", data: [], markLine: budget || undefined },
      ...["front", "reference", "candidate", "returned"].map((kind) => ({
        type: "scatter", cursor: "pointer", z: kind === "returned" ? 5 : 3, ...MARKS[kind](),
        data: points(kind).map((point) => ({ value: point.place, pick: point.pick, text: point.text })),
      })),
      {
        type: "scatter", silent: true, symbol: "circle", symbolSize: 28, z: 6,
        itemStyle: { color: "transparent", borderColor: colour("accent"), borderWidth: 2, borderType: "dashed" },
        data: chosen.place ? [{ value: chosen.place }] : [],
      },
    ],
  };
};

const agreement = (data) => ({
  grid: { left: 66, right: 18, top: 10, bottom: 48 },
  tooltip: tooltip(),
  xAxis: axis(data.ticks, "predicted"),
  yAxis: axis(data.ticks, "measured", { nameGap: 50 }),
  series: [
    { type: "line", silent: true, symbol: "none", data: [[0, 0], [100, 100]], lineStyle: { color: colour("dim"), width: 1.5 }, markLine: grid(data.ticks, data.ticks) },
    { type: "scatter", ...MARKS.candidate(), data: data.points.filter((point) => point.pick !== "returned").map((point) => ({ value: point.place, text: point.text })) },
    { type: "scatter", z: 4, ...MARKS.returned(), data: data.points.filter((point) => point.pick === "returned").map((point) => ({ value: point.place, text: point.text })) },
  ],
});

const layers = (data) => {
  const several = data.colours.map((_, place) => place);
  const paint = data.colours.map(colour);
  const tops = [0, ...data.lanes.map((_, place) => 68 + 98 * place)];
  const heights = [30, ...data.lanes.map(() => 62)];
  const bar = { type: "bar", barCategoryGap: several.length > 150 ? "0%" : "12%", cursor: "pointer" };
  const series = [{ ...bar, xAxisIndex: 0, yAxisIndex: 0, barCategoryGap: several.length > 150 ? "0%" : "4%", data: several.map((place) => ({ value: 100, itemStyle: { color: paint[place] } })) }];
  data.lanes.forEach((lane, number) => {
    const at = { xAxisIndex: number + 1, yAxisIndex: number + 1, stack: `lane${number}` };
    series.push({ ...bar, ...at, silent: true, itemStyle: { color: "transparent" }, data: lane.from });
    series.push({ ...bar, ...at, data: several.map((place) => ({ value: lane.to[place] - lane.from[place], itemStyle: { color: paint[place] } })) });
  });
  return {
    title: data.lanes.map((lane, number) => ({ text: lane.title, left: 0, top: tops[number + 1] - 24, padding: 0, textStyle: { color: colour("dim"), fontSize: 12.5, fontWeight: 400 } })),
    grid: tops.map((top, number) => ({ left: 1, right: 1, top, height: heights[number] })),
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    tooltip: {
      ...tooltip(), trigger: "axis", axisPointer: { type: "shadow", shadowStyle: { color: colour("ink"), opacity: 0.12 } },
      formatter: (points) => data.texts[points[0].dataIndex],
    },
    xAxis: tops.map((_, number) => ({ type: "category", gridIndex: number, data: several, axisLabel: { show: false }, axisTick: { show: false }, axisLine: { show: number > 0, lineStyle: { color: colour("line") } } })),
    yAxis: tops.map((_, number) => ({ type: "value", gridIndex: number, min: 0, max: 100, show: false })),
    series,
  };
};

const KINDS = { front, agreement, layers };

const draw = (box) => {
  const data = JSON.parse(box.parentElement.querySelector("script").textContent);
  const known = echarts.getInstanceByDom(box);
  const chart = known ?? echarts.init(box, null, { renderer: "svg" });
  chart.setOption({ animation: false, textStyle: { fontFamily: font() }, ...KINDS[box.dataset.chart](data) }, { notMerge: true });
  if (known) return;
  new ResizeObserver(() => chart.resize()).observe(box);
  chart.on("click", (point) => clicked(box.dataset.chart, point));
};

// A click does what the table's link does; one on a layer shows its row.
const clicked = (kind, point) => {
  if (kind === "front" && point.data.pick) {
    document.querySelector(`tr[data-pick="${point.data.pick}"] a`).click();
  } else if (kind === "layers") {
    const row = document.getElementById(`layer-${point.dataIndex + 1}`);
    for (const other of document.querySelectorAll("tr.found")) other.classList.remove("found");
    row.classList.add("found");
    row.scrollIntoView({ block: "nearest" });
  }
};

const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);
document.addEventListener("htmx:after:swap", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
