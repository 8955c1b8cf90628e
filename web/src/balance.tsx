// The reconcile balance: of what each agent accepted, how much the hub holds and verified, and how far tables are.
import type { ApiError, Epoch, EpochVerdict, Reconcile } from "./api";
import { countText } from "./format";

interface Sum {
  accepted: number;
  received: number;
  verified: number;
  missing: number;
  lost: number;
}

const VERDICTS: Record<EpochVerdict, { text: string; tone: string }> = {
  balanced: { text: "Balanced", tone: "good" },
  "in-flight": { text: "In flight", tone: "flight" },
  mismatch: { text: "Mismatch", tone: "bad" },
  unreported: { text: "No account", tone: "none" },
};

const LEGEND = [
  ["verified", "verified"],
  ["received", "received"],
  ["flight", "on the way"],
  ["lost", "lost by policy"],
] as const;

export function Balance({ reconcile, error }: { reconcile: Reconcile | undefined; error: ApiError | undefined }) {
  if (!reconcile) {
    return (
      <div className="card">
        <h2>Balance</h2>
        <p className="dim">{error ? error.message : "Loading …"}</p>
      </div>
    );
  }
  const verdict = whole(reconcile);
  const total = reconcile.agents.flatMap((agent) => agent.epochs).reduce(add, EMPTY);
  const lag = Math.max(0, ...reconcile.sinks.map((sink) => sink.lag));
  return (
    <div className="card balance">
      <header className="title">
        <h2>Balance</h2>
        <span className={`pill ${verdict.tone}`} role="status" data-testid="balance">
          <i className="dot" aria-hidden="true" />
          {verdict.text}
        </span>
      </header>
      <div className="stages">
        <Stage name="Agents accepted" figure={total.accepted} unit="samples" />
        <Arrow text={total.missing > 0 ? `${countText(total.missing)} on the way` : "all here"} tone={total.missing > 0 ? "flight" : "good"} />
        <Stage name="Hub holds" figure={total.received} unit="samples" />
        <Arrow text={reconcile.sinks.length === 0 ? "no table" : lag > 0 ? `${countText(lag)} on the way` : "all committed"} tone={reconcile.sinks.length === 0 ? "none" : lag > 0 ? "flight" : "good"} />
        <Stage name={reconcile.sinks.length === 1 ? `Table ${reconcile.sinks[0]?.name}` : "Tables"} figure={reconcile.sinks.length === 0 ? null : reconcile.log.end - lag} unit="log records" />
      </div>
      {reconcile.agents.map((agent) => (
        <AgentBalance key={agent.agent} name={agent.agent} verdict={agent.verdict} epochs={agent.epochs} />
      ))}
      {reconcile.sinks.map((sink) => (
        <div className="bars" key={sink.name}>
          <div className="line">
            <strong>{sink.name}</strong>
            <span className={`tone ${sink.behind_start || sink.alarm ? "bad" : sink.lag > 0 ? "flight" : "good"}`}>{sink.behind_start ? "behind the log's start" : sink.alarm ? `alarm: ${sink.alarm}` : sink.lag > 0 ? "following" : "up to date"}</span>
            <span className="dim">
              {countText(sink.position)} of {countText(reconcile.log.end)} log records committed
            </span>
          </div>
          <Bar parts={[[sink.position - reconcile.log.first, "verified", "committed"], [sink.lag, "flight", "not yet committed"]]} />
        </div>
      ))}
      <p className="legend dim" aria-hidden="true">
        {LEGEND.map(([kind, name]) => (
          <span key={kind}>
            <i className={`key ${kind}`} /> {name}
          </span>
        ))}
      </p>
    </div>
  );
}

function whole(reconcile: Reconcile): { text: string; tone: string } {
  const verdicts = reconcile.agents.map((agent) => agent.verdict);
  if (verdicts.includes("mismatch") || reconcile.sinks.some((sink) => sink.behind_start || sink.alarm)) return VERDICTS.mismatch;
  if (verdicts.includes("in-flight") || reconcile.sinks.some((sink) => sink.lag > 0)) return VERDICTS["in-flight"];
  if (verdicts.includes("balanced")) return VERDICTS.balanced;
  return VERDICTS.unreported;
}

function Stage({ name, figure, unit }: { name: string; figure: number | null; unit: string }) {
  return (
    <div className="stage">
      <small className="dim">{name}</small>
      <strong>{figure === null ? "–" : countText(figure)}</strong>
      <small className="dim">{unit}</small>
    </div>
  );
}

function Arrow({ text, tone }: { text: string; tone: string }) {
  return (
    <div className={`arrow ${tone}`}>
      <span aria-hidden="true" />
      <small>{text}</small>
    </div>
  );
}

function AgentBalance({ name, verdict, epochs }: { name: string; verdict: EpochVerdict; epochs: Epoch[] }) {
  const sum = epochs.reduce(add, EMPTY);
  const shown = VERDICTS[verdict];
  const mismatch = epochs.find((epoch) => epoch.mismatch !== null);
  return (
    <div className="bars">
      <div className="line">
        <strong>{name}</strong>
        <span className={`tone ${shown.tone}`}>{shown.text.toLowerCase()}</span>
        <span className="dim">{countText(sum.received)} samples</span>
        {sum.lost > 0 && <span className="tone bad">{countText(sum.lost)} records lost by policy</span>}
      </div>
      <Bar parts={parts(epochs)} />
      <Books epochs={epochs} />
      {mismatch && <p className="problem">{mismatch.mismatch}</p>}
      {epochs.length > 0 && (
        <details>
          <summary>
            {epochs.length} {epochs.length === 1 ? "epoch" : "epochs"}
          </summary>
          <div className="scroll">
            <table>
              <thead>
                <tr>
                  <th>epoch</th>
                  <th>state</th>
                  <th>records</th>
                  <th>missing</th>
                  <th>lost</th>
                  <th>samples</th>
                  <th>accepted</th>
                  <th>checksum</th>
                </tr>
              </thead>
              <tbody>
                {epochs.map((epoch) => (
                  <tr key={epoch.epoch}>
                    <td>
                      <code>{epoch.epoch.slice(0, 8)}</code>
                    </td>
                    <td className={`tone ${VERDICTS[epoch.verdict].tone}`}>{VERDICTS[epoch.verdict].text.toLowerCase()}</td>
                    <td>{countText(epoch.records_received)}</td>
                    <td>{countText(epoch.records_missing)}</td>
                    <td>{countText(epoch.records_lost)}</td>
                    <td>{countText(epoch.received.count)}</td>
                    <td>{epoch.reported ? countText(epoch.reported.total.count) : "–"}</td>
                    <td>
                      <code title={epoch.received.checksum}>{epoch.received.checksum.slice(0, 8)}</code>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </details>
      )}
    </div>
  );
}

/** From what the devices read to what tables hold, in samples. Epochs of an agent that does not count are left out of the first stages. */
function Books({ epochs }: { epochs: Epoch[] }) {
  const devices = epochs.flatMap((epoch) => epoch.devices);
  const sum = (of: (device: Epoch["devices"][number]) => number) => devices.reduce((total, device) => total + of(device), 0);
  const received = epochs.reduce((total, epoch) => total + epoch.received.count, 0);
  const history = epochs.reduce((total, epoch) => total + epoch.history, 0);
  const sinks = [...new Set(epochs.flatMap((epoch) => Object.keys(epoch.exported)))];
  const unreadable = sum((device) => device.quarantined);
  const aside = epochs.reduce((total, epoch) => total + epoch.quarantined.reduce((count, [start, end]) => count + end - start, 0), 0);
  const exported = (sink: string) => {
    const counts = epochs.map((epoch) => epoch.exported[sink] ?? null);
    return counts.includes(null) ? "far behind" : countText(counts.reduce((total: number, count) => total + (count ?? 0), 0));
  };
  return (
    <div className="figures" data-testid="books">
      {devices.length > 0 && <Count name="Read" text={countText(sum((device) => device.read))} />}
      {devices.length > 0 && <Count name="Within dead bands" text={countText(sum((device) => device.dead_band))} />}
      {unreadable > 0 && <Count name="Unreadable input" text={countText(unreadable)} warn />}
      {devices.length > 0 && <Count name="Accepted" text={countText(sum((device) => device.accepted ?? device.received))} />}
      <Count name="Received" text={history > 0 ? `${countText(received)}, ${countText(history)} as history` : countText(received)} />
      {aside > 0 && <Count name="In quarantine" text={`${countText(aside)} records`} warn />}
      {sinks.map((sink) => (
        <Count key={sink} name={`In table ${sink}`} text={exported(sink)} />
      ))}
    </div>
  );
}

function Count({ name, text, warn = false }: { name: string; text: string; warn?: boolean }) {
  return (
    <span className={warn ? "figure warn" : "figure"}>
      <small>{name}</small>
      {text}
    </span>
  );
}

type Part = [records: number, kind: string, name: string];

/** Records of an agent by how sure the hub is of them. */
function parts(epochs: Epoch[]): Part[] {
  let verified = 0;
  let received = 0;
  let flight = 0;
  let lost = 0;
  for (const epoch of epochs) {
    const sure = Math.min(epoch.records_received, epoch.verified_end);
    verified += sure;
    received += epoch.records_received - sure;
    flight += epoch.records_missing;
    lost += epoch.records_lost;
  }
  return [
    [verified, "verified", "verified"],
    [received, "received", "received"],
    [flight, "flight", "on the way"],
    [lost, "lost", "lost by policy"],
  ];
}

function Bar({ parts }: { parts: Part[] }) {
  const total = parts.reduce((sum, [records]) => sum + Math.max(0, records), 0);
  const text = parts.filter(([records]) => records > 0).map(([records, , name]) => `${countText(records)} records ${name}`);
  return (
    <div className="bar" role="img" aria-label={text.join(", ") || "nothing yet"} title={text.join(", ")}>
      {total > 0 &&
        parts.map(([records, kind]) =>
          // What there is, is seen: at least 1 % of the bar.
          records > 0 ? <span key={kind} className={kind} style={{ flexGrow: Math.max(records / total, 0.01) }} /> : null,
        )}
    </div>
  );
}

const EMPTY: Sum = { accepted: 0, received: 0, verified: 0, missing: 0, lost: 0 };

function add(sum: Sum, epoch: Epoch): Sum {
  return {
    accepted: sum.accepted + Math.max(epoch.reported?.total.count ?? 0, epoch.received.count),
    received: sum.received + epoch.received.count,
    verified: sum.verified + epoch.verified_end,
    missing: sum.missing + epoch.records_missing,
    lost: sum.lost + epoch.records_lost,
  };
}
