// What every server transport does, seen through @grpc/grpc-js and through raw sockets.
//
// The methods served here are small and odd on purpose: each provokes one behaviour of the transport.

import { mkdtemp, rm } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { gzipSync, deflateSync } from "node:zlib";
import * as grpc from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import {
  formatAddress,
  type ListenAddress,
  type ServerTransport,
  type TransportOptions,
} from "../../src/grpc/server.ts";
import { silentLogger } from "../../src/telemetry/log.ts";
import { MetricsRegistry } from "../../src/telemetry/metrics.ts";
import { rawCall } from "./raw-call.ts";
import { TestService, MAX_REQUEST_BYTES } from "./test-service.ts";

const asIs = (bytes: Buffer): Buffer => bytes;
const path = (method: string): string => `/test.Echo/${method}`;

interface Running {
  readonly transport: ServerTransport;
  readonly address: ListenAddress;
  readonly service: TestService;
  readonly client: grpc.Client;
}

export function describeTransportContract(name: string, create: (options: TransportOptions) => ServerTransport): void {
  describe(name, () => {
    const cleanups: (() => Promise<void> | void)[] = [];
    afterEach(async () => {
      for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
    });

    async function start(address: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 0 }): Promise<Running> {
      const service = new TestService();
      const transport = create({
        services: [service.definition],
        http1: (request, response) => {
          void text(request).then((body) => response.end(`${request.method} ${request.url} ${body.length}`));
        },
        defaultMaxRequestBytes: MAX_REQUEST_BYTES,
        logger: silentLogger,
        metrics: new MetricsRegistry(),
      });
      const bound = await transport.listen(address);
      const client = new grpc.Client(formatAddress(bound), grpc.credentials.createInsecure(), {
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        "grpc.use_local_subchannel_pool": 1,
      });
      cleanups.push(
        () => transport.close({ signal: AbortSignal.abort() }),
        () => client.close(),
      );
      return { transport, address: bound, service, client };
    }

    interface UnaryResult {
      readonly error: grpc.ServiceError | null;
      readonly response: Buffer | undefined;
    }

    function unary(
      client: grpc.Client,
      method: string,
      body: Uint8Array,
      metadata = new grpc.Metadata(),
      options: grpc.CallOptions = {},
    ): Promise<UnaryResult> {
      return new Promise((resolve) => {
        client.makeUnaryRequest(path(method), asIs, asIs, Buffer.from(body), metadata, options, (error, response) => {
          resolve({ error, response });
        });
      });
    }

    async function succeed(
      client: grpc.Client,
      method: string,
      body: Uint8Array,
      metadata?: grpc.Metadata,
    ): Promise<Buffer> {
      const { error, response } = await unary(client, method, body, metadata);
      if (error !== null) throw error;
      if (response === undefined) throw new Error("no response");
      return response;
    }

    function http2Address(address: ListenAddress): string {
      return address.kind === "tcp" ? `http://127.0.0.1:${address.port}` : "http://unix";
    }

    it("answers a unary call whose handler returns at once", async () => {
      const { client } = await start();
      expect((await succeed(client, "Sync", Buffer.from("hello"))).toString()).toBe("hello");
    });

    it("answers a unary call whose handler returns a promise", async () => {
      const { client } = await start();
      expect((await succeed(client, "Async", Buffer.from("hello"))).toString()).toBe("hello");
    });

    it("carries an empty request and an empty response", async () => {
      const { client } = await start();
      expect((await succeed(client, "Sync", Buffer.alloc(0))).length).toBe(0);
    });

    it("carries a message of 4 MiB both ways", async () => {
      const { client } = await start();
      const body = Buffer.alloc(4 * 1024 * 1024, "abcdefg");
      expect((await succeed(client, "Async", body)).equals(body)).toBe(true);
    });

    it("ends a call with the code, message and details of a StatusError", async () => {
      const { client } = await start();
      const { error } = await unary(client, "Fail", Buffer.from('blob "a" is missing: 100 % gone, naïve ☃ 😀\r\n'));
      expect(error?.code).toBe(grpc.status.FAILED_PRECONDITION);
      expect(error?.details).toBe('blob "a" is missing: 100 % gone, naïve ☃ 😀\r\n');
      const details = error?.metadata.get("grpc-status-details-bin")[0];
      expect(Buffer.from(details ?? "").includes("type.googleapis.com/test.Detail")).toBe(true);
    });

    it("keeps trailers below 8000 octets by dropping details and cutting the message (G-32)", async () => {
      const { client } = await start();
      const { error } = await unary(client, "FailLarge", Buffer.alloc(0));
      expect(error?.code).toBe(grpc.status.INVALID_ARGUMENT);
      expect(error?.details.startsWith("☃☃☃")).toBe(true);
      expect(error?.metadata.get("grpc-status-details-bin")).toEqual([]);
    });

    it("answers INTERNAL without the text of an error that is no StatusError", async () => {
      const { client } = await start();
      const { error } = await unary(client, "Bug", Buffer.alloc(0));
      expect(error?.code).toBe(grpc.status.INTERNAL);
      expect(error?.details).not.toContain("secret");
    });

    it("hands metadata to the handler, also binary and repeated", async () => {
      const { client } = await start();
      const metadata = new grpc.Metadata();
      metadata.add("x-text", "one");
      metadata.add("x-text", "two");
      metadata.add("x-data-bin", Buffer.from([0, 1, 254, 255]));
      const response = JSON.parse((await succeed(client, "Metadata", Buffer.alloc(0), metadata)).toString()) as Record<
        string,
        unknown
      >;
      expect(response).toMatchObject({
        text: "one,two",
        binary: "0001feff",
        path: "/test.Echo/Metadata",
        peerIsLocal: true,
      });
    });

    it("reads -bin metadata with and without padding, and refuses what is no base64 on that call only (G-11)", async () => {
      const { address, client } = await start();
      for (const value of ["AAH+/w", "AAH+/w=="]) {
        const answer = await rawCall(http2Address(address), path("Metadata"), { "x-data-bin": value });
        expect(answer.message?.toString()).toContain("0001feff");
      }
      expect(await rawCall(http2Address(address), path("Metadata"), { "x-data-bin": "***" })).toMatchObject({
        grpcStatus: "13",
      });
      expect((await succeed(client, "Sync", Buffer.from("x"))).toString()).toBe("x");
    });

    it("sends a stream of responses in order", async () => {
      const { client } = await start();
      const call = client.makeServerStreamRequest(path("Count"), asIs, asIs, Buffer.from("200"));
      const received: string[] = [];
      for await (const message of call) received.push((message as Buffer).toString());
      expect(received).toEqual(Array.from({ length: 200 }, (_, index) => String(index)));
    });

    it("reads a stream of requests and sees its end", async () => {
      const { client } = await start();
      const total = await new Promise<string>((resolve, reject) => {
        const call = client.makeClientStreamRequest<Buffer, Buffer>(path("Sum"), asIs, asIs, (error, response) => {
          if (error === null) resolve(String(response));
          else reject(error);
        });
        for (const size of [27_182, 8, 1828, 45_904, 0]) call.write(Buffer.alloc(size));
        call.end();
      });
      expect(total).toBe("74922");
    });

    it("answers each message of a bidirectional stream before the next one is sent", async () => {
      const { client } = await start();
      const call = client.makeBidiStreamRequest<Buffer, Buffer>(path("Chat"), asIs, asIs);
      const sizes = [27_182, 8, 1828, 45_904, 200_000];
      const received: number[] = [];
      call.on("data", (message: Buffer) => {
        received.push(message.length);
        const next = sizes[received.length];
        if (next === undefined) call.end();
        else call.write(Buffer.alloc(next));
      });
      call.write(Buffer.alloc(sizes[0] ?? 0));
      const status = await new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
      expect(status.code).toBe(0);
      expect(received).toEqual(sizes);
    });

    it("answers an empty bidirectional stream with OK and no message", async () => {
      const { client } = await start();
      const call = client.makeBidiStreamRequest<Buffer, Buffer>(path("Chat"), asIs, asIs);
      call.on("data", () => undefined);
      call.end();
      const status = await new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
      expect(status.code).toBe(0);
    });

    it("ends an upload early: response, OK, and the client stops sending (F-63)", async () => {
      const { client } = await start();
      let wroteMessages = 0;
      const response = await new Promise<string>((resolve, reject) => {
        const call = client.makeClientStreamRequest<Buffer, Buffer>(path("Early"), asIs, asIs, (error, message) => {
          if (error === null) resolve(String(message));
          else reject(error);
        });
        const writeMore = (): void => {
          if (wroteMessages++ < 1000) call.write(Buffer.alloc(64 * 1024), () => setImmediate(writeMore));
        };
        writeMore();
      });
      expect(response).toBe("enough");
      expect(wroteMessages).toBeLessThan(1000);
    });

    it("gives the handler large messages whose ArrayBuffer is theirs alone", async () => {
      const { client, service } = await start();
      await new Promise<void>((resolve, reject) => {
        const call = client.makeClientStreamRequest<Buffer, Buffer>(path("Sum"), asIs, asIs, (error) =>
          error === null ? resolve() : reject(error),
        );
        call.write(Buffer.alloc(300_000, 7));
        call.write(Buffer.alloc(70_000, 7));
        call.end();
      });
      expect(service.largeBuffersOwned).toEqual([true, true]);
    });

    it("ends a call at its deadline and tells the handler", async () => {
      const { client, service } = await start();
      const { error } = await unary(client, "Hang", Buffer.alloc(0), new grpc.Metadata(), {
        deadline: Date.now() + 100,
      });
      expect(error?.code).toBe(grpc.status.DEADLINE_EXCEEDED);
      expect(await service.nextAbort()).toMatch(/^(DEADLINE_EXCEEDED|CANCELLED)$/);
    });

    it("answers DEADLINE_EXCEEDED itself, with a client that has no timer of its own (G-42)", async () => {
      const { address, service } = await start();
      const answer = await rawCall(http2Address(address), path("Hang"), { "grpc-timeout": "50m" });
      expect(answer.grpcStatus).toBe("4");
      expect(await service.nextAbort()).toBe("DEADLINE_EXCEEDED");
    });

    it("refuses a deadline that has passed, and takes the largest one (G-40, A-29)", async () => {
      const { address } = await start();
      expect(await rawCall(http2Address(address), path("Sync"), { "grpc-timeout": "0n" })).toMatchObject({
        grpcStatus: "4",
      });
      expect(await rawCall(http2Address(address), path("Async"), { "grpc-timeout": "99999999H" })).toMatchObject({
        grpcStatus: "0",
      });
      expect(await rawCall(http2Address(address), path("Sync"), { "grpc-timeout": "5 s" })).toMatchObject({
        grpcStatus: "13",
      });
    });

    it("aborts the handler when the client cancels, in unary and streaming calls (G-43)", async () => {
      const { client, service } = await start();
      for (const method of ["Hang", "HangStream"]) {
        const call = client.makeServerStreamRequest(path(method), asIs, asIs, Buffer.alloc(0));
        call.on("error", () => undefined).on("data", () => undefined);
        await service.nextStart();
        call.cancel();
        expect(await service.nextAbort()).toBe("CANCELLED");
      }
    });

    it("aborts the handler when the connection ends (G-45)", async () => {
      const { client, service, transport } = await start();
      const call = client.makeServerStreamRequest(path("HangStream"), asIs, asIs, Buffer.alloc(0));
      call.on("error", () => undefined).on("data", () => undefined);
      await service.nextStart();
      client.close();
      call.cancel();
      expect(await service.nextAbort()).toBe("CANCELLED");
      await expect.poll(() => transport.activeCalls).toBe(0);
    });

    // Node's client half-closes before it resets, so the handler may see an end instead of CANCELLED.
    it("ends a blocked read() when the client cancels", async () => {
      const { client, service, transport } = await start();
      const call = client.makeBidiStreamRequest<Buffer, Buffer>(path("Chat"), asIs, asIs);
      call.on("error", () => undefined).on("data", () => undefined);
      call.write(Buffer.from("x"));
      await service.nextStart();
      call.cancel();
      await expect.poll(() => transport.activeCalls).toBe(0);
    });

    it("names unknown methods and services with UNIMPLEMENTED", async () => {
      const { client } = await start();
      const method = await unary(client, "Nope", Buffer.alloc(0));
      expect(method.error?.code).toBe(grpc.status.UNIMPLEMENTED);
      expect(method.error?.details).toContain("test.Echo");
      const service = await new Promise<grpc.ServiceError | null>((resolve) => {
        client.makeUnaryRequest("/other.Service/Do", asIs, asIs, Buffer.alloc(0), (error) => resolve(error));
      });
      expect(service?.code).toBe(grpc.status.UNIMPLEMENTED);
    });

    it("routes on the exact path only (A-30)", async () => {
      const { address } = await start();
      for (const odd of [
        "/test.Echo/Sync?x",
        "//test.Echo/Sync",
        "/test.Echo/sync",
        "/test.Echo%2fSync",
        "/test.Echo/Sync/",
      ]) {
        expect(await rawCall(http2Address(address), odd, {})).toMatchObject({ grpcStatus: "12" });
      }
    });

    it("refuses requests without gRPC content or with another method, naming both kinds of status (3.1)", async () => {
      const { address } = await start();
      const base = http2Address(address);
      expect(await rawCall(base, path("Sync"), { "content-type": "application/json" })).toMatchObject({
        httpStatus: 415,
        grpcStatus: "3",
      });
      expect(await rawCall(base, path("Sync"), { "content-type": "application/grpc-web" })).toMatchObject({
        httpStatus: 415,
      });
      expect(await rawCall(base, path("Sync"), { ":method": "PUT" })).toMatchObject({
        httpStatus: 405,
        grpcStatus: "13",
      });
      expect(await rawCall(base, path("Sync"), { "content-type": "application/grpc+proto" })).toMatchObject({
        grpcStatus: "0",
      });
    });

    it("reads messages however they are cut into DATA frames (G-20)", async () => {
      const { address } = await start();
      const message = Buffer.concat([Buffer.from([0, 0, 0, 0, 5]), Buffer.from("hello")]);
      for (let cut = 0; cut <= message.length; cut++) {
        const body = [message.subarray(0, cut), message.subarray(cut)];
        const answer = await rawCall(http2Address(address), path("Sync"), {}, { body });
        expect(answer.message?.toString()).toBe("hello");
      }
    });

    it("reads several messages of one DATA frame", async () => {
      const { address } = await start();
      const one = Buffer.from([0, 0, 0, 0, 1, 0x61]);
      const body = [Buffer.concat(Array.from({ length: 500 }, () => one))];
      expect((await rawCall(http2Address(address), path("Sum"), {}, { body })).message?.toString()).toBe("500");
    });

    it("refuses broken framing: two messages, none, an end inside a message, a wrong flag (G-25)", async () => {
      const { address } = await start();
      const base = http2Address(address);
      const one = Buffer.from([0, 0, 0, 0, 1, 0x61]);
      expect(await rawCall(base, path("Sync"), {}, { body: [one, one] })).toMatchObject({ grpcStatus: "12" });
      expect(await rawCall(base, path("Sync"), {}, { body: [] })).toMatchObject({ grpcStatus: "12" });
      expect(await rawCall(base, path("Sync"), {}, { body: [one.subarray(0, 3)] })).toMatchObject({ grpcStatus: "13" });
      expect(await rawCall(base, path("Sum"), {}, { body: [Buffer.from([0, 0, 0, 0, 9, 1])] })).toMatchObject({
        grpcStatus: "13",
      });
      expect(await rawCall(base, path("Sync"), {}, { body: [Buffer.from([2, 0, 0, 0, 0])] })).toMatchObject({
        grpcStatus: "13",
      });
    });

    it("refuses a message over the method's limit on its prefix, naming the limit (G-21, A-26)", async () => {
      const { address, client } = await start();
      const { error } = await unary(client, "Small", Buffer.alloc(1025));
      expect(error?.code).toBe(grpc.status.RESOURCE_EXHAUSTED);
      expect(error?.details).toContain("1024");
      expect((await succeed(client, "Small", Buffer.alloc(1024))).length).toBe(1024);
      const lie = await rawCall(
        http2Address(address),
        path("Sum"),
        {},
        { body: [Buffer.from([0, 255, 255, 255, 255])], open: true },
      );
      expect(lie.grpcStatus).toBe("8");
    });

    it("takes gzip and deflate, bounded by the message limit (G-22, G-23, A-27)", async () => {
      const { address } = await start();
      const base = http2Address(address);
      const frame = (bytes: Uint8Array): Buffer => {
        const prefix = Buffer.from([1, 0, 0, 0, 0]);
        prefix.writeUInt32BE(bytes.length, 1);
        return Buffer.concat([prefix, bytes]);
      };
      const plain = Buffer.alloc(100_000, "xyz");
      for (const [encoding, bytes] of [
        ["gzip", gzipSync(plain)],
        ["deflate", deflateSync(plain)],
      ] as const) {
        for (const method of ["Sync", "Chat"]) {
          const answer = await rawCall(base, path(method), { "grpc-encoding": encoding }, { body: [frame(bytes)] });
          expect(answer.message?.equals(plain)).toBe(true);
        }
      }
      const bomb = frame(gzipSync(Buffer.alloc(MAX_REQUEST_BYTES + 1)));
      expect(await rawCall(base, path("Sync"), { "grpc-encoding": "gzip" }, { body: [bomb] })).toMatchObject({
        grpcStatus: "8",
      });
      expect(
        await rawCall(base, path("Sync"), { "grpc-encoding": "gzip" }, { body: [frame(Buffer.from("nonsense"))] }),
      ).toMatchObject({ grpcStatus: "13" });
      expect(await rawCall(base, path("Sync"), {}, { body: [frame(gzipSync(plain))] })).toMatchObject({
        grpcStatus: "13",
      });
      const unknown = await rawCall(base, path("Sync"), { "grpc-encoding": "snappy" }, { body: [frame(plain)] });
      expect(unknown).toMatchObject({ grpcStatus: "12", acceptEncoding: "identity,gzip,deflate" });
    });

    it("serves 1,000 streams of one connection at once", async () => {
      const { client, service, transport } = await start();
      service.holdUntil(1000);
      const answers = await Promise.all(
        Array.from({ length: 1000 }, (_, index) => succeed(client, "Gather", Buffer.from(String(index)))),
      );
      expect(answers.map(String)).toEqual(Array.from({ length: 1000 }, (_, index) => String(index)));
      await expect.poll(() => transport.activeCalls).toBe(0);
    });

    it("stops reading a client that is faster than the handler (back pressure in)", async () => {
      const { client, service } = await start();
      const call = client.makeClientStreamRequest<Buffer, Buffer>(path("NeverReads"), asIs, asIs, () => undefined);
      call.on("error", () => undefined);
      let taken = 0;
      const writeMore = (): void => {
        call.write(Buffer.alloc(64 * 1024), () => {
          taken++;
          setImmediate(writeMore);
        });
      };
      writeMore();
      await service.nextStart();
      let before = -1;
      await expect
        .poll(
          () => {
            const still = before === taken;
            before = taken;
            return still;
          },
          { interval: 200, timeout: 10_000 },
        )
        .toBe(true);
      // Far less than an endless upload: the windows, and what grpc-js and the kernel hold.
      expect(taken * 64).toBeLessThan(40 * 1024);
      call.cancel();
    });

    it("stops the handler's writes when the client does not read (back pressure out)", async () => {
      const { address, service } = await start();
      const session = connectHttp2(http2Address(address));
      cleanups.push(() => session.destroy());
      const stream = session.request({
        ":method": "POST",
        ":path": path("Flood"),
        "content-type": "application/grpc",
        te: "trailers",
      });
      stream.on("error", () => undefined);
      stream.end(Buffer.from([0, 0, 0, 0, 0]));
      await service.nextStart();
      let before = -1;
      await expect
        .poll(
          () => {
            const still = before === service.floodedMessages;
            before = service.floodedMessages;
            return still;
          },
          { interval: 200, timeout: 10_000 },
        )
        .toBe(true);
      expect(service.floodedMessages).toBeLessThan(200);
      stream.close(8);
      expect(await service.nextAbort()).toBe("CANCELLED");
    });

    it("serves HTTP/1.1 on the same port, octet by octet too", async () => {
      const { address } = await start();
      if (address.kind !== "tcp") throw new Error("unreachable");
      const { port } = address;
      const answer = await new Promise<string>((resolve, reject) => {
        const request = httpRequest(
          { port, host: "127.0.0.1", path: "/cas/abc", method: "PUT", agent: false },
          (response) => {
            text(response).then(resolve, reject);
          },
        );
        request.on("error", reject);
        request.end(Buffer.alloc(2_000_000));
      });
      expect(answer).toBe("PUT /cas/abc 2000000");
      const socket = connectSocket(port, "127.0.0.1").on("error", () => undefined);
      for (const character of "PRI_X /a HTTP/1.1\r\nHost: a\r\n\r\n") {
        socket.write(character);
        await new Promise((resolve) => setImmediate(resolve));
      }
      const refused = await text(socket).catch(() => "");
      expect(refused).toMatch(/^(HTTP\/1\.1 400|$)/);
      const put = connectSocket(port, "127.0.0.1");
      for (const character of "PUT /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx") {
        put.write(character);
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(await text(put)).toContain("PUT /a 1");
    });

    it("listens on a unix socket, and replaces the file of a dead server", async () => {
      const directory = await mkdtemp(join(tmpdir(), "transport-"));
      cleanups.push(() => rm(directory, { recursive: true, force: true }));
      const socketPath = join(directory, "socket");
      const first = await start({ kind: "unix", path: socketPath });
      expect((await succeed(first.client, "Sync", Buffer.from("x"))).toString()).toBe("x");
      const metadata = JSON.parse((await succeed(first.client, "Metadata", Buffer.alloc(0))).toString()) as Record<
        string,
        unknown
      >;
      expect(metadata["peer"]).toBe("unix:");
      await expect(start({ kind: "unix", path: socketPath })).rejects.toThrow(/another server/);
    });

    it("names the address that it cannot listen on", async () => {
      const { address } = await start();
      await expect(start(address)).rejects.toThrow(new RegExp(`${formatAddress(address)}.*in use`));
    });

    it("closes gracefully: calls under way finish, new connections are refused", async () => {
      const { client, service, transport, address } = await start();
      const slow = succeed(client, "Released", Buffer.from("late"));
      await service.nextStart();
      const closed = transport.close({ signal: new AbortController().signal });
      if (address.kind !== "tcp") throw new Error("unreachable");
      await expect(
        new Promise((resolve, reject) => {
          connectSocket(address.port, "127.0.0.1").once("connect", resolve).once("error", reject);
        }),
      ).rejects.toThrow("ECONNREFUSED");
      service.release();
      expect((await slow).toString()).toBe("late");
      await closed;
      expect(transport.activeCalls).toBe(0);
    });

    it("closes at once when the grace is over, cancelling what runs", async () => {
      const { client, service, transport } = await start();
      const hanging = unary(client, "Hang", Buffer.alloc(0));
      await service.nextStart();
      const grace = new AbortController();
      const closed = transport.close({ signal: grace.signal });
      grace.abort();
      await closed;
      expect(await service.nextAbort()).toBe("CANCELLED");
      expect((await hanging).error?.code).toBe(grpc.status.UNAVAILABLE);
    });

    it("gives each connection its own id, the same for all its calls", async () => {
      const first = await start();
      const ids: unknown[] = [];
      const other = new grpc.Client(formatAddress(first.address), grpc.credentials.createInsecure(), {
        "grpc.use_local_subchannel_pool": 1,
      });
      cleanups.push(() => other.close());
      for (const client of [first.client, first.client, other]) {
        ids.push(
          (JSON.parse((await succeed(client, "Metadata", Buffer.alloc(0))).toString()) as Record<string, unknown>)[
            "connectionId"
          ],
        );
      }
      expect(ids[0]).toBe(ids[1]);
      expect(ids[2]).not.toBe(ids[0]);
    });
  });
}
