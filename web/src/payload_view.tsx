// A payload for people: Sparkplug metrics as a table, JSON laid out, text as it is, other bytes as hex.
import type { Metric, Payload } from "./api";
import { bytesText, clockText, countText, qualityClass, qualityText, valueText } from "./format";

/** One line of it, for a list. */
export function payloadLine(payload: Payload): string {
  switch (payload.kind) {
    case "empty":
      return "(empty)";
    case "sparkplug": {
      const metrics = payload.sparkplug?.metrics ?? [];
      const first = metrics[0];
      const count = payload.sparkplug?.metrics_count ?? 0;
      if (!first) return count === 0 ? "no metrics" : `${countText(count)} metrics`;
      return `${nameOf(first)} = ${valueOf(first)}${count > 1 ? ` and ${countText(count - 1)} more` : ""}`;
    }
    default:
      return (payload.text ?? "").slice(0, 200);
  }
}

export function PayloadView({ payload }: { payload: Payload }) {
  return (
    <div className="payload" data-kind={payload.kind} data-testid="payload">
      {payload.problem && (
        <p className="outcome warn">
          <strong>No Sparkplug payload, though its topic says so:</strong> {payload.problem}
        </p>
      )}
      {payload.kind === "empty" && <p className="dim">An empty message; with the retain flag it ends the retained one.</p>}
      {payload.kind === "sparkplug" && payload.sparkplug && <SparkplugTable sparkplug={payload.sparkplug} />}
      {payload.text !== undefined && <pre tabIndex={0}>{payload.kind === "json" && !payload.cut ? layOut(payload.text) : payload.kind === "hex" ? byteLines(payload.text) : payload.text}</pre>}
      {payload.cut && <p className="note dim">Only a part of {bytesText(payload.bytes)} is shown.</p>}
    </div>
  );
}

function SparkplugTable({ sparkplug }: { sparkplug: NonNullable<Payload["sparkplug"]> }) {
  return (
    <>
      <p className="note dim">
        Sparkplug B{sparkplug.seq !== null && ` · seq ${sparkplug.seq}`}
        {sparkplug.timestamp && ` · sent ${clockText(sparkplug.timestamp)}`} · {countText(sparkplug.metrics_count)} {sparkplug.metrics_count === 1 ? "metric" : "metrics"}
      </p>
      <div className="scroll" tabIndex={0} role="region" aria-label="Metrics">
        <table>
          <thead>
            <tr>
              <th>Metric</th>
              <th>Value</th>
              <th>Type</th>
              <th>Time</th>
              <th>Quality</th>
            </tr>
          </thead>
          <tbody>
            {sparkplug.metrics.map((metric, index) => (
              <tr key={index}>
                <td className="text">
                  {nameOf(metric)}
                  {metric.name !== undefined && metric.alias !== undefined && <small className="dim"> {metric.alias}</small>}
                </td>
                <td className="text">{valueOf(metric)}</td>
                <td className="dim">{metric.type ?? ""}</td>
                <td className="dim">{metric.t ? clockText(metric.t) : ""}</td>
                <td className={`v-${qualityClass(metric.q)}`}>
                  {qualityText(metric.q)}
                  {metric.historical && <span className="chip">historical</span>}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function nameOf(metric: Metric): string {
  return metric.name ?? (metric.alias === undefined ? "(no name)" : `alias ${metric.alias}`);
}

function valueOf(metric: Metric): string {
  return valueText({ t: "", v: metric.v, q: metric.q, special: metric.special }, metric.type ?? "float");
}

/** Lays JSON out without reading its numbers: what was sent is what is shown, digit by digit. */
export function layOut(json: string): string {
  let text = "";
  let depth = 0;
  const line = (): string => `\n${"  ".repeat(Math.min(depth, 40))}`;
  for (let at = 0; at < json.length; at += 1) {
    const character = json[at]!;
    if (character === '"') {
      let end = at + 1;
      while (end < json.length && json[end] !== '"') end += json[end] === "\\" ? 2 : 1;
      text += json.slice(at, end + 1);
      at = end;
    } else if (character === "{" || character === "[") {
      const closing = /^\s*[}\]]/.exec(json.slice(at + 1, at + 200));
      if (closing) {
        text += character + closing[0].trim();
        at += closing[0].length;
      } else {
        depth += 1;
        text += character + line();
      }
    } else if (character === "}" || character === "]") {
      depth -= 1;
      text += line() + character;
    } else if (character === ",") text += character + line();
    else if (character === ":") text += ": ";
    else if (!/\s/.test(character)) text += character;
  }
  return text;
}

/** 16 bytes a line. */
function byteLines(hex: string): string {
  return (hex.match(/.{1,32}/g) ?? []).map((line) => (line.match(/../g) ?? []).join(" ")).join("\n");
}
