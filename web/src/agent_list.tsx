// The agents: who is there, since when, with which devices, and how much they still hold.
import type { Agent, ApiError } from "./api";
import { DeviceTable } from "./device_table";
import { ageText, clockText, countText } from "./format";
import { useNow } from "./hooks";

export function AgentList({ agents, error }: { agents: Agent[] | undefined; error: ApiError | undefined }) {
  const now = useNow();
  return (
    <div className="card">
      <h2>Agents</h2>
      {agents?.length === 0 && <p className="dim">No agent has announced itself yet.</p>}
      {!agents && <p className="dim">{error ? error.message : "Loading …"}</p>}
      <ul className="agents">
        {agents?.map((agent) => (
          <li key={agent.agent}>
            <div className="line">
              <i className={`dot q-${agent.online ? "good" : "stale"}`} aria-hidden="true" />
              <strong>{agent.agent}</strong>
              <span className={`tone ${agent.online ? "good" : "bad"}`}>{agent.online ? "online" : "offline"}</span>
              <span className="dim">
                {agent.since && (
                  <>
                    since <time dateTime={agent.since}>{clockText(agent.since)}</time>
                  </>
                )}
              </span>
              {agent.foreign && <span className="dim">Sparkplug node without receipts</span>}
            </div>
            <DeviceTable agent={agent} />
            <div className="figures">
              <Figure name="Backlog" text={agent.backlog === null ? "not known" : `${countText(agent.backlog)} records`} warn={(agent.backlog ?? 0) > 1000} />
              {agent.outbox_used !== null && <Figure name="Outbox" text={`${agent.outbox_used} % used`} warn={agent.outbox_used >= 80} />}
              <Figure name="Last receipt" text={agent.foreign ? "none" : since(now, agent.last_receipt)} warn={!agent.foreign && agent.online && old(now, agent.last_receipt, 15_000)} />
              <Figure name="Last message" text={since(now, agent.last_message)} />
              <Figure name="Version" text={agent.version || "not known"} />
              <Figure name="Rebirths" text={countText(agent.rebirths)} />
              {agent.clock_ahead_ms !== null && <Figure name="Clock" text={skew(agent.clock_ahead_ms)} warn={agent.is_off_clock} />}
              <Figure name="Gaps" text={countText(agent.gaps)} warn={agent.gaps > 0} />
            </div>
          </li>
        ))}
      </ul>
    </div>
  );
}

function Figure({ name, text, warn = false }: { name: string; text: string; warn?: boolean }) {
  return (
    <span className={warn ? "figure warn" : "figure"}>
      <small>{name}</small>
      {text}
    </span>
  );
}

/** How far a clock is from the hub's. */
function skew(ms: number): string {
  if (Math.abs(ms) < 1000) return "as the hub's";
  const seconds = Math.round(Math.abs(ms) / 1000);
  return `${countText(seconds)} s ${ms > 0 ? "ahead" : "behind"}`;
}

function since(now: number, time: string | null): string {
  if (time === null) return "never";
  const age = ageText(now - Date.parse(time));
  return age === "now" ? "just now" : `${age} ago`;
}

function old(now: number, time: string | null, millis: number): boolean {
  return time === null || now - Date.parse(time) > millis;
}
