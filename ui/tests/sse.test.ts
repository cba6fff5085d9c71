import { describe, expect, test } from "vitest";
import { readEvents, SseParser } from "../src/lib/sse";
import { streamOf } from "./fakes";

const STREAM = ': hello\r\nid: 1.1\r\ndata: {"a":\r\ndata: 1}\r\n\r\nevent: state\ndata:x\n\nid: 1.2\rdata: last\r\r';

describe("events of a stream", () => {
  test("are the same wherever the network cut it", () => {
    const whole = new SseParser().push(`${STREAM}\n`);
    expect(whole).toEqual([
      { event: "message", data: '{"a":\n1}', id: "1.1" },
      { event: "state", data: "x", id: "1.1" },
      { event: "message", data: "last", id: "1.2" },
    ]);
    for (let size = 1; size < 9; size++) {
      const parser = new SseParser();
      const found = [];
      const text = `${STREAM}\n`;
      for (let at = 0; at < text.length; at += size) found.push(...parser.push(text.slice(at, at + size)));
      expect(found).toEqual(whole);
    }
  });

  test("without data are none, and what follows the last empty line waits", () => {
    const parser = new SseParser();
    expect(parser.push("event: state\n\n: beat\n\ndata: open\n")).toEqual([]);
    expect(parser.push("\n")).toEqual([{ event: "message", data: "open", id: "" }]);
  });

  test("keep letters of several bytes that were cut in two, and drop a byte order mark", async () => {
    const bytes = new TextEncoder().encode("\uFEFFdata: žluť 🦊\n\n");
    const pieces = [...bytes].map((byte) => new Uint8Array([byte]));
    const events = [];
    for await (const event of readEvents(streamOf(pieces))) events.push(event.data);
    expect(events).toEqual(["žluť 🦊"]);
  });

  test("tell of life by comments too", async () => {
    let pieces = 0;
    for await (const event of readEvents(streamOf([": beat\n\n", ": beat\n\n"]), () => pieces++)) expect(event).toBeNull();
    expect(pieces).toBe(2);
  });
});
