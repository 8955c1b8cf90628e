// The devices of one agent, those in trouble first: state, points by quality, requests, latency, the last error.
import type { Agent, Device } from "./api";
import { ageText, clockText, countText, rateText } from "./format";
import { useNow } from "./hooks";

/** An agent reports every 10 s: what is older than this is no news. */
const OLD = 30_000;

export function DeviceTable({ agent }: { agent: Agent }) {
  const now = useNow();
  if (agent.devices.length === 0) return null;
  const devices = [...agent.devices].sort((a, b) => trouble(agent, b) - trouble(agent, a) || a.name.localeCompare(b.name));
  return (
    <div className="scroll">
      <table className="devices" aria-label={`Devices of ${agent.agent}`}>
        <thead>
          <tr>
            <th scope="col">Device</th>
            <th scope="col">State</th>
            <th scope="col">Points</th>
            <th scope="col" className="number">
              Requests/s
            </th>
            <th scope="col" className="number">
              p50 · p99
            </th>
          </tr>
        </thead>
        <tbody>
          {devices.map((device) => (
            <Row key={device.name} device={device} agent={agent} now={now} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ device, agent, now }: { device: Device; agent: Agent; now: number }) {
  const health = device.health;
  const [word, tone] = state(agent, device);
  const isOld = health !== null && agent.online && now - Date.parse(health.as_of) > OLD;
  return (
    <>
      <tr className={health?.error ? "has-error" : undefined}>
        <th scope="row">
          <i className={`dot q-${tone}`} aria-hidden="true" />
          {device.name}
          {health && <small className="dim">{health.driver}</small>}
        </th>
        <td>
          <span className={`tone ${tone === "good" ? "good" : "bad"}`}>{word}</span>
          {health && (
            <small className="dim">
              since <time dateTime={health.since}>{clockText(health.since)}</time>
              {isOld && `, told ${ageText(now - Date.parse(health.as_of))} ago`}
            </small>
          )}
        </td>
        <td>{health ? <Points health={health} /> : <span className="dim">not told</span>}</td>
        <td className="number">{health && health.requests > 0 ? rateText(health.requests_per_second) : "–"}</td>
        <td className="number">{health?.p50_ms != null ? `${millis(health.p50_ms)} · ${millis(health.p99_ms)} ms` : "–"}</td>
      </tr>
      {(health?.error || health?.is_off_clock) && (
        <tr className="error">
          <td colSpan={5}>
            {health.error ?? "Its clock is off: values are uncertain"}
            {health.last_read && (
              <span className="dim">
                {" "}
                · last read <time dateTime={health.last_read}>{clockText(health.last_read)}</time>
              </span>
            )}
          </td>
        </tr>
      )}
    </>
  );
}

const QUALITIES = ["good", "uncertain", "bad", "stale", "unread"] as const;

function Points({ health }: { health: NonNullable<Device["health"]> }) {
  return (
    <span className="counts">
      {QUALITIES.filter((quality) => health.points[quality] > 0 || quality === "good").map((quality) => (
        <span key={quality} className={quality === "good" ? undefined : `v-${quality === "unread" ? "none" : quality}`}>
          {countText(health.points[quality])} {quality}
        </span>
      ))}
    </span>
  );
}

function state(agent: Agent, device: Device): [string, "good" | "bad" | "stale"] {
  if (!agent.online) return ["not known", "stale"];
  if (!device.health) return device.online ? ["online", "good"] : ["offline", "stale"];
  if (device.health.state === "down") return ["down", "bad"];
  return device.health.state === "up" ? ["up", "good"] : ["connecting", "stale"];
}

/** The higher, the sooner somebody should look. */
function trouble(agent: Agent, device: Device): number {
  const health = device.health;
  if (!health) return device.online ? 0 : 3000;
  const points = health.points;
  const count = points.good + points.uncertain + points.bad + points.stale + points.unread;
  const part = count === 0 ? 0 : (points.bad + points.stale + points.uncertain + points.unread) / count;
  const ofState = !agent.online ? 0 : health.state === "down" ? 5000 : health.state === "connecting" ? 4000 : 0;
  return ofState + (health.error ? 2000 : 0) + (health.is_off_clock ? 1000 : 0) + part * 999;
}

function millis(value: number | null): string {
  if (value === null) return "–";
  return value < 10 ? value.toFixed(1) : countText(value);
}
