// The selected point: its value now, its trend, what it is, and the box to write it.
import { Fragment } from "react";
import type { Plant, Point } from "./api";
import { ageText, boundText, clockText, qualityClass, qualityText, unitText, valueText } from "./format";
import { useLink, useNow, useReading } from "./hooks";
import { RawValue } from "./raw_value";
import { Trend } from "./trend";
import { WriteBox } from "./write_box";

interface Props {
  point: Point | null;
  path: string | null;
  plant: Plant;
  visible: boolean;
}

export function PointPane({ point, path, plant, visible }: Props) {
  if (!point) {
    return (
      <div className="card empty">
        <p className="dim">{path === null ? "Choose a point to see its trend." : `The plant has no point ${path} at the moment.`}</p>
      </div>
    );
  }
  const cut = point.path.lastIndexOf("/");
  return (
    <div className="card point">
      <header className="title">
        <div className="names">
          <span className="dim where">{point.path.slice(0, Math.max(0, cut)).split("/").join(" / ")}</span>
          <h2>{point.path.slice(cut + 1)}</h2>
          {point.description && <p className="dim description">{point.description}</p>}
        </div>
        <Now point={point} />
      </header>
      {visible && <Trend point={point} />}
      <div className="below">
        <Details point={point} />
        <RawValue key={point.path} point={point} />
        {point.writable && <WriteBox point={point} enabled={plant.commands_enabled} />}
      </div>
    </div>
  );
}

function Now({ point }: { point: Point }) {
  const reading = useReading(point.path);
  const now = useNow();
  const isCut = useLink() === "lost";
  const quality = qualityClass(reading?.q);
  return (
    <div className="now" aria-label="Value now">
      <div className={`big v-${quality}`}>
        <span data-testid="value-now">{valueText(reading, point.type)}</span>
        {point.unit && <small>{unitText(point.unit)}</small>}
      </div>
      <div className="quality">
        <i className={`dot q-${quality}`} aria-hidden="true" />
        <span>{isCut && reading ? `The hub is not heard; it was ${qualityText(reading.q).toLowerCase()}` : qualityText(reading?.q)}</span>
        {reading && (
          <time className="dim" dateTime={reading.t} title={reading.t}>
            {clockText(reading.t)} · {ageText(now - Date.parse(reading.t))}
          </time>
        )}
      </div>
    </div>
  );
}

function Details({ point }: { point: Point }) {
  const bound = (number: number | null): string => (number === null ? "…" : boundText(number));
  const facts: [string, string][] = [
    ["Path", point.path],
    ["Type", point.type],
    ["Unit", point.unit || "none"],
    ["Range", point.min === null && point.max === null ? "not limited" : `${bound(point.min)} to ${bound(point.max)}`],
    ["Writable", point.writable ? "yes" : "no"],
    ["Agent", point.agent],
    ["Device", point.device ?? "the agent itself"],
    ["Metric", point.metric],
  ];
  return (
    <dl className="facts">
      {facts.map(([name, text]) => (
        <div key={name} className={name === "Path" ? "wide" : undefined}>
          <dt>{name}</dt>
          <dd>{name === "Path" ? <Breaking path={text} /> : text}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A path that breaks after its slashes. */
function Breaking({ path }: { path: string }) {
  return path.split("/").map((level, index) => (
    <Fragment key={index}>
      {index > 0 && (
        <>
          /<wbr />
        </>
      )}
      {level}
    </Fragment>
  ));
}
