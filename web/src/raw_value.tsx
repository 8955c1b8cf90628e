// How a point's value came to be: what the device said, what was done to it, and the result. The agent is asked while it is open.
import { useState } from "react";
import { get, type Look, type Point } from "./api";
import { boundText, clockText, qualityClass, qualityText, unitText } from "./format";
import { usePolled } from "./hooks";

export function RawValue({ point }: { point: Point }) {
  const [open, setOpen] = useState(false);
  if (point.device === null) return null;
  return (
    <details className="raw" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Raw value and transforms</summary>
      {open && <Steps key={point.path} path={point.path} unit={point.unit} />}
    </details>
  );
}

function Steps({ path, unit }: { path: string; unit: string }) {
  const { data: look, error } = usePolled<Look>((signal) => get("/look", { path }, signal), 2000);
  if (error) {
    return (
      <p className="dim" role="status">
        {error.message} {error.remedy}
      </p>
    );
  }
  if (!look) return <p className="dim">Asking the agent …</p>;
  return (
    <dl className="facts steps" aria-label="Raw value and transforms">
      <Step name="Address" text={`${look.address} (${look.raw_type})`} />
      <Step name="Raw value" text={look.raw ?? "none"} id="raw-value" />
      {look.scale !== null && <Step name="Scale" text={`× ${look.scale}`} />}
      {look.offset !== null && <Step name="Offset" text={`${look.offset < 0 ? "−" : "+"} ${Math.abs(look.offset)}`} />}
      {(look.min !== null || look.max !== null) && <Step name="Range" text={`${bound(look.min)} to ${bound(look.max)}`} />}
      <Step name="Result" text={`${look.value ?? "none"}${look.value !== null && unit ? ` ${unitText(unit)}` : ""}`} id="raw-result" />
      <div>
        <dt>Quality</dt>
        <dd>
          <i className={`dot q-${qualityClass(look.quality ?? undefined)}`} aria-hidden="true" /> {look.quality ? qualityText(look.quality) : "Not read yet"}
        </dd>
      </div>
      {look.time && <Step name="Time" text={clockText(look.time)} />}
      {look.dead_band !== null && <Step name="Dead band" text={look.dead_band === 0 ? "only changes are passed on" : `changes up to ${look.dead_band} stay here`} />}
    </dl>
  );
}

function Step({ name, text, id }: { name: string; text: string; id?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd data-testid={id}>{text}</dd>
    </div>
  );
}

function bound(number: number | null): string {
  return number === null ? "…" : boundText(number);
}
