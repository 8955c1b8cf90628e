// Writing a set-point: value, reason, expiry, a second look, and the outcome as the device showed it.
import { useEffect, useState, type FormEvent } from "react";
import { ApiError, get, post, type CommandRecord, type Point } from "./api";
import { boundText, clockText, unitText } from "./format";

interface Outcome {
  id: string;
  outcome: string;
  read_back: string | null;
}

export function WriteBox({ point, enabled }: { point: Point; enabled: boolean }) {
  const [value, setValue] = useState("");
  const [reason, setReason] = useState("");
  const [expires, setExpires] = useState("5s");
  const [step, setStep] = useState<"edit" | "confirm" | "sent">("edit");
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const recent = useRecent(point.path, outcome?.id);

  if (!enabled) {
    return (
      <div className="write">
        <h3>Write</h3>
        <p className="dim">
          Commands are switched off in this hub. <code>[hub.commands] enabled = true</code> allows them.
        </p>
      </div>
    );
  }

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (step === "edit") {
      setOutcome(null);
      setError(null);
      setStep("confirm");
      return;
    }
    setStep("sent");
    try {
      setOutcome(await post<Outcome>("/commands", { path: point.path, value, expires, reason }));
    } catch (problem) {
      if (problem instanceof ApiError) setError(problem);
    }
    setStep("edit");
  };

  const limit = [point.min === null ? "" : `from ${boundText(point.min)}`, point.max === null ? "" : `to ${boundText(point.max)}`].filter(Boolean).join(" ");
  return (
    <form className="write" onSubmit={(event) => void submit(event)} aria-label={`Write ${point.path}`}>
      <h3>Write</h3>
      <fieldset disabled={step !== "edit"}>
        <label>
          <span>
            Value{point.unit && ` in ${unitText(point.unit)}`} <small className="dim">{limit}</small>
          </span>
          {point.type === "boolean" ? (
            <select value={value} onChange={(event) => setValue(event.target.value)} required>
              <option value="">choose</option>
              <option value="true">on</option>
              <option value="false">off</option>
            </select>
          ) : (
            <input value={value} onChange={(event) => setValue(event.target.value)} inputMode={/int|float|double/.test(point.type) ? "decimal" : "text"} required maxLength={4096} autoComplete="off" />
          )}
        </label>
        <label>
          <span>Reason</span>
          <input value={reason} onChange={(event) => setReason(event.target.value)} required maxLength={500} placeholder="Why, for the ledger" />
        </label>
        <label className="short">
          <span>Expires</span>
          <select value={expires} onChange={(event) => setExpires(event.target.value)}>
            <option value="5s">in 5 s</option>
            <option value="15s">in 15 s</option>
            <option value="60s">in 60 s</option>
          </select>
        </label>
      </fieldset>
      {step === "edit" ? (
        <button className="primary" disabled={value === "" || reason.trim() === ""}>
          Write …
        </button>
      ) : (
        <div className="confirm" role="group" aria-label="Confirm">
          <p>
            Write <strong>{value}</strong> {unitText(point.unit)} to <strong>{point.path}</strong>?
          </p>
          <button className="danger" disabled={step === "sent"} autoFocus>
            {step === "sent" ? "Waiting for the device …" : "Write now"}
          </button>
          <button type="button" onClick={() => setStep("edit")} disabled={step === "sent"}>
            Back
          </button>
        </div>
      )}
      <div aria-live="assertive">
        {outcome && (
          <p className={`outcome ${tone(outcome.outcome)}`} data-testid="outcome">
            <strong>{outcome.outcome}</strong>
            {outcome.read_back && <> · the device shows {outcome.read_back}</>}
          </p>
        )}
        {error && (
          <p className="outcome bad" data-testid="outcome">
            <strong>{error.message}</strong> {error.remedy}
          </p>
        )}
      </div>
      {recent.length > 0 && (
        <details className="recent">
          <summary>Earlier commands to this point</summary>
          <ul>
            {recent.map((command) => (
              <li key={command.id}>
                <span className="dim">{clockText(command.at)}</span> {command.value} <span className={`tone ${tone(command.outcome)}`}>{command.outcome}</span>
                <span className="dim"> {command.author}: {command.reason}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
    </form>
  );
}

function tone(outcome: string): string {
  return outcome === "done" ? "good" : outcome.startsWith("unknown") || outcome === "sent" || outcome === "recorded" ? "warn" : "bad";
}

function useRecent(path: string, after: string | undefined): CommandRecord[] {
  const [recent, setRecent] = useState<CommandRecord[]>([]);
  useEffect(() => {
    const abort = new AbortController();
    get<{ commands: CommandRecord[] }>("/commands", {}, abort.signal)
      .then((answer) => setRecent(answer.commands.filter((command) => command.path === path).slice(0, 8)))
      .catch(() => {}); // the list is a convenience; the next command asks again
    return () => abort.abort();
  }, [path, after]);
  return recent;
}
