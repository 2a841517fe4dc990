// What a call is over every transport, seen through @grpc/grpc-js: messages, metadata, status, deadlines, cancellation.

import * as grpc from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { rawCall } from "./raw-call.ts";
import {
  asIs,
  http2Address,
  path,
  succeed,
  TransportFixture,
  unary,
  type CreateTransport,
} from "./transport-fixture.ts";

export function describeCallContract(name: string, create: CreateTransport): void {
  describe(name, () => {
    const fixture = new TransportFixture(create);

    it("answers a unary call whose handler returns at once", async () => {
      const { client } = await fixture.start();
      expect((await succeed(client, "Sync", Buffer.from("hello"))).toString()).toBe("hello");
    });

    it("answers a unary call whose handler returns a promise", async () => {
      const { client } = await fixture.start();
      expect((await succeed(client, "Async", Buffer.from("hello"))).toString()).toBe("hello");
    });

    it("carries an empty request and an empty response", async () => {
      const { client } = await fixture.start();
      expect((await succeed(client, "Sync", Buffer.alloc(0))).length).toBe(0);
    });

    it("carries a message of 4 MiB both ways", async () => {
      const { client } = await fixture.start();
      const body = Buffer.alloc(4 * 1024 * 1024, "abcdefg");
      expect((await succeed(client, "Async", body)).equals(body)).toBe(true);
    });

    it("ends a call with the code, message and details of a StatusError", async () => {
      const { client } = await fixture.start();
      const { error } = await unary(client, "Fail", Buffer.from('blob "a" is missing: 100 % gone, naïve ☃ 😀\r\n'));
      expect(error?.code).toBe(grpc.status.FAILED_PRECONDITION);
      expect(error?.details).toBe('blob "a" is missing: 100 % gone, naïve ☃ 😀\r\n');
      const details = error?.metadata.get("grpc-status-details-bin")[0];
      expect(Buffer.from(details ?? "").includes("type.googleapis.com/test.Detail")).toBe(true);
    });

    it("ends a call with a failure that its handler returns", async () => {
      const { client } = await fixture.start();
      const { error } = await unary(client, "Miss", Buffer.from("not here: ☃"));
      expect([error?.code, error?.details]).toEqual([grpc.status.NOT_FOUND, "not here: ☃"]);
    });

    it("keeps trailers below 8000 octets by dropping details and cutting the message (G-32)", async () => {
      const { client } = await fixture.start();
      const { error } = await unary(client, "FailLarge", Buffer.alloc(0));
      expect(error?.code).toBe(grpc.status.INVALID_ARGUMENT);
      expect(error?.details.startsWith("☃☃☃")).toBe(true);
      expect(error?.metadata.get("grpc-status-details-bin")).toEqual([]);
    });

    it("answers INTERNAL without the text of an error that is no StatusError", async () => {
      const { client } = await fixture.start();
      const { error } = await unary(client, "Bug", Buffer.alloc(0));
      expect(error?.code).toBe(grpc.status.INTERNAL);
      expect(error?.details).not.toContain("secret");
    });

    it("hands metadata to the handler, also binary and repeated", async () => {
      const { client } = await fixture.start();
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
      const { address, client } = await fixture.start();
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
      const { client } = await fixture.start();
      const call = client.makeServerStreamRequest(path("Count"), asIs, asIs, Buffer.from("200"));
      const received: string[] = [];
      for await (const message of call) received.push((message as Buffer).toString());
      expect(received).toEqual(Array.from({ length: 200 }, (_, index) => String(index)));
    });

    it("reads a stream of requests and sees its end", async () => {
      const { client } = await fixture.start();
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
      const { client } = await fixture.start();
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
      const { client } = await fixture.start();
      const call = client.makeBidiStreamRequest<Buffer, Buffer>(path("Chat"), asIs, asIs);
      call.on("data", () => undefined);
      call.end();
      const status = await new Promise<grpc.StatusObject>((resolve) => call.on("status", resolve));
      expect(status.code).toBe(0);
    });

    it("ends an upload early: response, OK, and the client stops sending (F-63)", async () => {
      const { client } = await fixture.start();
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
      const { client, service } = await fixture.start();
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
      const { client, service } = await fixture.start();
      const { error } = await unary(client, "Hang", Buffer.alloc(0), { call: { deadline: Date.now() + 100 } });
      expect(error?.code).toBe(grpc.status.DEADLINE_EXCEEDED);
      expect(await service.nextAbort()).toMatch(/^(DEADLINE_EXCEEDED|CANCELLED)$/);
    });

    it("answers DEADLINE_EXCEEDED itself, with a client that has no timer of its own (G-42)", async () => {
      const { address, service } = await fixture.start();
      const answer = await rawCall(http2Address(address), path("Hang"), { "grpc-timeout": "50m" });
      expect(answer.grpcStatus).toBe("4");
      expect(await service.nextAbort()).toBe("DEADLINE_EXCEEDED");
    });

    it("refuses a deadline that has passed, and takes the largest one (G-40, A-29)", async () => {
      const { address } = await fixture.start();
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
      const { client, service } = await fixture.start();
      for (const method of ["Hang", "HangStream"]) {
        const call = client.makeServerStreamRequest(path(method), asIs, asIs, Buffer.alloc(0));
        call.on("error", () => undefined).on("data", () => undefined);
        await service.nextStart();
        call.cancel();
        expect(await service.nextAbort()).toBe("CANCELLED");
      }
    });

    it("aborts the handler when the connection ends (G-45)", async () => {
      const { client, service, transport } = await fixture.start();
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
      const { client, service, transport } = await fixture.start();
      const call = client.makeBidiStreamRequest<Buffer, Buffer>(path("Chat"), asIs, asIs);
      call.on("error", () => undefined).on("data", () => undefined);
      call.write(Buffer.from("x"));
      await service.nextStart();
      call.cancel();
      await expect.poll(() => transport.activeCalls).toBe(0);
    });

    it("names unknown methods and services with UNIMPLEMENTED", async () => {
      const { client } = await fixture.start();
      const method = await unary(client, "Nope", Buffer.alloc(0));
      expect(method.error?.code).toBe(grpc.status.UNIMPLEMENTED);
      expect(method.error?.details).toContain("test.Echo");
      const service = await new Promise<grpc.ServiceError | null>((resolve) => {
        client.makeUnaryRequest("/other.Service/Do", asIs, asIs, Buffer.alloc(0), (error) => resolve(error));
      });
      expect(service?.code).toBe(grpc.status.UNIMPLEMENTED);
    });
  });
}
