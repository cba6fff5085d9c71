// Generated from router/wire.py by ui/generate_types.py. Do not edit.

export type Fix = "" | "share" | "pair" | "address";

export type JobState = "queued" | "loading" | "working" | "done" | "failed" | "cancelled";

export type Level = "good" | "note" | "bad";

export type NodeMode = "running" | "paused" | "draining" | "drained";

export type PeerState = "discovered" | "pending" | "healthy" | "unhealthy" | "draining" | "offline";

export type UpdateState = "off" | "checking" | "current" | "available" | "downloading" | "testing" | "waiting" | "installing" | "failed";

/** What went wrong: stable code, one sentence, a hint what to do, the HTTP status it has. */
export interface ErrorInfo {
  code: string;
  message: string;
  hint: string;
  status: number;
  retry_after_s: number | null;
}

/** One job as lists show it. ``place`` is 1 for the next to run; ``why`` says what it waits for. */
export interface JobInfo {
  id: string;
  kind: string;
  origin: string;
  model: string;
  state: JobState;
  created_at: number;
  started_at: number | null;
  completed_at: number | null;
  attempt: number;
  place: number | null;
  eta_s: number | null;
  why: string;
  loading_pct: number | null;
  tokens: number;
  node: string | null;
  engine: string | null;
  chat_id: string | null;
  key: string | null;
  error: ErrorInfo | null;
  receipt: Receipt | null;
}

/** One engine on this computer. ``state`` is starting, ready or failed; ``detail`` says why it failed. */
export interface EngineInfo {
  id: string;
  kind: string;
  label: string;
  url: string;
  state: string;
  detail: string;
  version: string;
  width: number;
  in_flight: number;
}

/** One model at one engine. ``name`` is what clients ask for. ``residency`` is cold, loading or warm. */
export interface ModelInfo {
  name: string;
  node: string;
  node_name: string;
  local: boolean;
  engine: string;
  digest: string | null;
  size_bytes: number | null;
  family: string;
  parameters: string;
  quantisation: string;
  context: number | null;
  capabilities: string[];
  residency: string;
  loading_pct: number | null;
  in_flight: number;
  waiting: number;
  expires_at: number | null;
  memory_bytes: number | null;
  source: string;
  problem: string;
  modified_at: number | null;
}

/**
 * This computer's node. ``models`` counts what its engines offer; ``notice`` is what the user must look at.
 *
 * ``network`` are the addresses at which other computers reach it, with a key.
 */
export interface NodeInfo {
  id: string;
  name: string;
  version: string;
  mode: NodeMode;
  address: string;
  port: number;
  started_at: number;
  paused_until: number | null;
  running: number;
  waiting: number;
  models: number;
  ram_total_bytes: number;
  ram_free_bytes: number;
  gpu: string;
  vram_total_bytes: number;
  vram_free_bytes: number;
  disk_free_bytes: number;
  data_dir: string;
  notice: string;
  network: string[];
  sleep: string;
  update: UpdateInfo | null;
}

/** One setting as the Settings page and the README show it. ``source`` is default, file or environment. */
export interface SettingInfo {
  name: string;
  title: string;
  sentence: string;
  group: string;
  type: string;
  default: unknown;
  value: unknown;
  choices: string[];
  unit: string;
  source: string;
  environment: string;
  restart: boolean;
}

/** One conversation in the list. */
export interface ChatInfo {
  id: string;
  title: string;
  model: string;
  created_at: number;
  updated_at: number;
  running_job: string | null;
}

/** What the user set for one conversation; None leaves the engine's default. */
export interface ChatOptions {
  system: string;
  temperature: number | null;
  max_tokens: number | null;
}

/** One message; ``state`` is running or ended. An answer has ``job_id``; once ended, ``receipt`` or ``error``. */
export interface Message {
  id: string;
  chat_id: string;
  parent_id: string | null;
  role: string;
  content: string;
  reasoning: string;
  reasoning_s: number | null;
  images: string[];
  model: string;
  created_at: number;
  state: string;
  job_id: string | null;
  receipt: Receipt | null;
  error: ErrorInfo | null;
}

/** A conversation with its messages, oldest first. Messages form a tree by ``parent_id``; the newest leaf shows. */
export interface Chat {
  info: ChatInfo;
  options: ChatOptions;
  messages: Message[];
}

/** Everything the page shows at its start; ``Change`` events keep it true. */
export interface Snapshot {
  node: NodeInfo;
  engines: EngineInfo[];
  models: ModelInfo[];
  jobs: JobInfo[];
  chats: ChatInfo[];
  settings: SettingInfo[];
  peers: PeerInfo[];
  pairing: PairingInfo;
}

/**
 * One pushed change: each field that is present replaces what the page has.
 *
 * ``jobs`` and ``chats`` are merged by id (``gone`` lists ids to remove); ``engines``, ``models``, ``settings`` and
 * ``peers`` replace the whole list; ``message`` is a new or changed message of the chat it names.
 */
export interface Change {
  node?: NodeInfo | null;
  engines?: EngineInfo[] | null;
  models?: ModelInfo[] | null;
  jobs?: JobInfo[] | null;
  chats?: ChatInfo[] | null;
  settings?: SettingInfo[] | null;
  peers?: PeerInfo[] | null;
  pairing?: PairingInfo | null;
  message?: Message | null;
  gone?: string[] | null;
  notice?: string | null;
}

/** What an API key was used for: jobs that ended, and their tokens. */
export interface KeyUsed {
  requests: number;
  prompt_tokens: number;
  completion_tokens: number;
}

/**
 * One API key in force. ``name`` is the person or program, ``tail`` the key's last four characters.
 *
 * ``today`` is the day in UTC.
 */
export interface KeyInfo {
  id: string;
  name: string;
  tail: string;
  created_at: number;
  used_at: number | null;
  today: KeyUsed;
  total: KeyUsed;
}

/** Answer of ``POST /local/v1/keys``: the only time that ``key`` is shown. */
export interface MadeKey {
  info: KeyInfo;
  key: string;
}

/** ``POST /local/v1/keys``: a key for a person or program. */
export interface NewKey {
  name: string;
}

/** ``POST /local/v1/chats``. */
export interface NewChat {
  title?: string;
  model?: string;
}

/** ``PATCH /local/v1/chats/{id}``: a field that is absent stays. */
export interface ChatPatch {
  title?: string | null;
  model?: string | null;
  options?: ChatOptions | null;
}

/** ``POST /local/v1/chats/{id}/messages``: what the user wrote; ``images`` are data: addresses. */
export interface NewMessage {
  content: string;
  model: string;
  parent_id?: string | null;
  images?: string[];
}

/** ``POST /local/v1/chats/{id}/regenerate``: a new answer beside the one named. */
export interface Regenerate {
  message_id: string;
  model?: string;
}

/** Answer of the two routes above; follow ``/local/v1/jobs/{job_id}/events``. */
export interface Answering {
  message: Message | null;
  answer: Message;
  job_id: string;
}

/** ``POST /local/v1/models/load|unload|remove``: a public model name, optionally at one engine. */
export interface ModelAction {
  name: string;
  engine?: string;
}

/** ``POST /local/v1/models/add``: an absolute path of a .gguf file or of a folder with such files. */
export interface AddModel {
  path: string;
}

/** Answer of ``models/add``: names now offered, and files refused with their reason. */
export interface Added {
  names: string[];
  refused: Record<string, string>;
}

/** ``POST /local/v1/pause``: without ``for_s`` until resumed. */
export interface PauseRequest {
  for_s?: number | null;
}

/** ``POST /local/v1/session``: the control token of the printed address, traded for a cookie. */
export interface SessionRequest {
  token: string;
}

/** ``event: state`` of a job's event stream. */
export interface State {
  state: JobState;
  place: number | null;
  eta_s: number | null;
  loading_pct: number | null;
  why: string;
  attempt: number;
  node: string | null;
}

/** ``event: ended``, the last of a job's event stream. */
export interface Ended {
  state: JobState;
  receipt: Receipt | null;
  error: ErrorInfo | null;
}

/**
 * The newer version, if any, and what is done about it. ``download_pct`` of the download, 0 to 100.
 *
 * ``refusal`` says why this program can't replace itself and how it is updated instead; empty when it can.
 */
export interface UpdateInfo {
  state: UpdateState;
  version: string;
  notes: string;
  download_pct: number | null;
  message: string;
  hint: string;
  refusal: string;
  checked_at: number | null;
}

/**
 * What the data folder takes, in bytes. ``bodies`` (kept prompts and answers of jobs) is a part of ``database``.
 *
 * ``models`` are those in the data folder only; ``backups`` are databases set aside or kept before a migration.
 */
export interface DiskUse {
  models_bytes: number;
  database_bytes: number;
  bodies_bytes: number;
  backups_bytes: number;
  logs_bytes: number;
  other_bytes: number;
  free_bytes: number;
}

/**
 * Another computer: paired with this one, or only seen in the network. ``reason`` says why its state is what it is.
 *
 * ``may_use`` and ``may_manage`` are what this computer allows it; ``granted`` is whether it lets this one use its
 * models, and ``shared`` whether anybody. ``loaded`` are the ``models`` in its memory. ``latencies_s`` are the last
 * times that a small request took there and back on an open connection, oldest first, one each 30 s; ``latency_s``
 * the last of them. ``heard_at`` is when it was heard of last, since this node started. ``own_name`` is what this
 * computer's owner calls it (then ``name`` is that, too), ``send`` whether this computer sends it work.
 */
export interface PeerInfo {
  id: string;
  name: string;
  state: PeerState;
  reason: string;
  paired: boolean;
  ignored: boolean;
  may_use: boolean;
  may_manage: boolean;
  addresses: string[];
  port: number;
  version: string;
  in_flight: number;
  waiting: number;
  width: number;
  ram_total_bytes: number;
  ram_free_bytes: number;
  gpu: string;
  vram_total_bytes: number;
  vram_free_bytes: number;
  models: string[];
  loaded: string[];
  latency_s: number | null;
  latencies_s: number[];
  heard_at: number | null;
  shared: boolean;
  granted: boolean;
  own_name: string;
  send: boolean;
}

/**
 * Pairing as this computer offers it. ``state`` is closed, open, asking, paired or failed.
 *
 * ``code`` are the six digits to type on the other computer until ``until_at``; ``addresses`` (host, or host:port) are
 * where that one finds this one. While it asks and afterwards, ``peer_id`` and ``peer_name`` say which one it is.
 */
export interface PairingInfo {
  state: string;
  code: string;
  until_at: number | null;
  addresses: string[];
  peer_id: string;
  peer_name: string;
  detail: string;
}

/**
 * What the doctor found of one computer: one sentence, and what to do. ``id`` and ``name`` are empty for this one.
 *
 * ``code`` is stable; ``at`` is the address (host:port) that it is about.
 */
export interface Finding {
  id: string;
  name: string;
  level: Level;
  code: string;
  sentence: string;
  hint: string;
  at: string;
  fix: Fix;
}

/**
 * Answer of ``POST /local/v1/doctor``. ``green``: every paired computer is fine, and nothing is wrong here.
 *
 * ``here`` is about this computer and has at least one finding; ``peers`` has one of each paired computer.
 */
export interface DoctorReport {
  at: number;
  green: boolean;
  here: Finding[];
  peers: Finding[];
}

/** ``POST /local/v1/doctor``: look at one paired computer only, or (empty) at all. */
export interface Examine {
  id?: string;
}

/** ``POST /local/v1/peers/{id}/address``: where a paired computer is now (host or host:port). */
export interface ReachAt {
  address: string;
}

/**
 * ``POST /local/v1/pairing/join``: the six digits that the other computer shows, and which computer that is.
 *
 * Either ``node_id`` of one seen in the network, or ``address`` (host or host:port). ``may_use`` lets it use this
 * computer's models.
 */
export interface JoinPairing {
  code: string;
  node_id?: string;
  address?: string;
  may_use?: boolean;
}

/** ``POST /local/v1/pairing/answer``: whether the computer that asks is accepted, and may use this one's models. */
export interface PairingAnswer {
  accept: boolean;
  may_use?: boolean;
}

/** ``PATCH /local/v1/peers/{id}``: a field that is absent stays. An empty ``own_name`` takes the computer's own. */
export interface PeerPatch {
  may_use?: boolean | null;
  may_manage?: boolean | null;
  ignored?: boolean | null;
  own_name?: string | null;
  send?: boolean | null;
}

/**
 * Why one candidate was or was not chosen. ``verdict`` is a word of the design: warm, cold, busy, ...
 *
 * ``predicted_s`` is when it would have been done, in seconds from the decision; None where nothing was measured.
 */
export interface Verdict {
  node: string;
  engine: string;
  verdict: string;
  detail: string;
  predicted_s: number | null;
}

/** One attempt at one holder and how it ended (``ok`` or an error code). */
export interface Try {
  number: number;
  node: string;
  engine: string;
  result: string;
  detail: string;
  duration_s: number;
}

/**
 * What was expected of the holder when it was chosen, from measured speeds; seconds.
 *
 * ``after_s`` had passed since the job was accepted (an earlier try, another line); then come the wait, the load, the
 * reading of ``prompt_tokens`` and the writing of ``answer_tokens``.
 */
export interface Predicted {
  after_s: number;
  wait_s: number;
  load_s: number;
  prefill_s: number;
  decode_s: number;
  prompt_tokens: number;
  answer_tokens: number;
}

/**
 * What the user is told afterwards about one job; it names the holder that really served.
 *
 * ``digest`` identifies the weights that served; None where their engine tells none: the model was found ``by_name``.
 * ``queued_s`` and ``loading_s`` count the wait and the load at another computer, too; ``ttft_s`` and ``working_s``
 * (of the try that served: to its first content, to its end) don't. What is left of ``total_s`` went into other tries.
 */
export interface Receipt {
  node: string;
  engine: string;
  model: string;
  digest: string | null;
  reason: string;
  verdicts: Verdict[];
  tries: Try[];
  queued_s: number;
  loading_s: number;
  ttft_s: number | null;
  working_s: number | null;
  total_s: number | null;
  prompt_tokens: number | null;
  cached_tokens: number | null;
  completion_tokens: number | null;
  prefill_per_s: number | null;
  tokens_per_s: number | null;
  by_name: boolean;
  predicted: Predicted | null;
}
