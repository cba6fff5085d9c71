/** Small stand-ins for what the network and the node give. */

import type { ChatInfo, JobInfo, Message, ModelInfo, Receipt, SettingInfo, Snapshot } from "../src/wire.gen";

const encoder = new TextEncoder();

/** A body that gives `pieces` and then ends, or breaks when `broken`. */
export function streamOf(pieces: (string | Uint8Array)[], broken = false): ReadableStream<Uint8Array> {
  const left = [...pieces];
  return new ReadableStream({
    pull(controller) {
      const piece = left.shift();
      if (piece !== undefined) controller.enqueue(typeof piece === "string" ? encoder.encode(piece) : piece);
      else if (broken) controller.error(new TypeError("network"));
      else controller.close();
    },
  });
}

export function chunk(id: string, content: string, reasoning = ""): string {
  const delta = { ...(content ? { content } : {}), ...(reasoning ? { reasoning_content: reasoning } : {}) };
  return `id: ${id}\ndata: ${JSON.stringify({ object: "chat.completion.chunk", choices: [{ index: 0, delta }] })}\n\n`;
}

export function event(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

export function message(id: string, parent: string | null, more: Partial<Message> = {}): Message {
  return {
    id,
    chat_id: "c",
    parent_id: parent,
    role: "user",
    content: id,
    reasoning: "",
    reasoning_s: null,
    images: [],
    model: "",
    created_at: 0,
    state: "ended",
    job_id: null,
    receipt: null,
    error: null,
    ...more,
  };
}

export function job(id: string, more: Partial<JobInfo> = {}): JobInfo {
  return {
    id,
    kind: "chat/completions",
    origin: "openai",
    model: "m",
    state: "queued",
    created_at: 0,
    started_at: null,
    completed_at: null,
    attempt: 1,
    place: null,
    eta_s: null,
    why: "",
    loading_pct: null,
    tokens: 0,
    node: null,
    engine: null,
    chat_id: null,
    key: null,
    error: null,
    receipt: null,
    ...more,
  };
}

export function chatInfo(id: string, updated: number): ChatInfo {
  return { id, title: id, model: "m", created_at: 0, updated_at: updated, running_job: null };
}

export function model(name: string, more: Partial<ModelInfo> = {}): ModelInfo {
  return {
    name,
    node: "n",
    node_name: "studio",
    local: true,
    engine: "builtin",
    digest: null,
    size_bytes: null,
    family: "",
    parameters: "",
    quantisation: "",
    context: null,
    capabilities: ["chat"],
    residency: "cold",
    loading_pct: null,
    in_flight: 0,
    waiting: 0,
    expires_at: null,
    memory_bytes: null,
    source: "",
    problem: "",
    modified_at: null,
    ...more,
  };
}

export function setting(more: Partial<SettingInfo>): SettingInfo {
  return {
    name: "s",
    title: "S",
    sentence: "",
    group: "G",
    type: "text",
    default: "",
    value: "",
    choices: [],
    unit: "",
    source: "default",
    environment: "QUORUM_S",
    restart: false,
    ...more,
  };
}

export function receipt(): Receipt {
  return {
    node: "studio",
    engine: "builtin",
    model: "m",
    digest: null,
    reason: "",
    verdicts: [],
    tries: [],
    queued_s: 0,
    loading_s: 0,
    ttft_s: null,
    working_s: null,
    total_s: null,
    prompt_tokens: null,
    cached_tokens: null,
    completion_tokens: null,
    prefill_per_s: null,
    tokens_per_s: null,
    by_name: true,
    predicted: null,
  };
}

export function snapshot(more: Partial<Snapshot> = {}): Snapshot {
  return {
    node: {
      id: "n",
      name: "studio",
      version: "0",
      mode: "running",
      address: "",
      port: 0,
      started_at: 0,
      paused_until: null,
      running: 0,
      waiting: 0,
      models: 0,
      ram_total_bytes: 0,
      ram_free_bytes: 0,
      gpu: "",
      vram_total_bytes: 0,
      vram_free_bytes: 0,
      disk_free_bytes: 0,
      data_dir: "",
      notice: "",
      network: [],
      sleep: "",
      update: null,
    },
    engines: [],
    models: [],
    jobs: [],
    chats: [],
    settings: [],
    peers: [],
    pairing: { state: "closed", code: "", until_at: null, addresses: [], peer_id: "", peer_name: "", detail: "" },
    ...more,
  };
}
