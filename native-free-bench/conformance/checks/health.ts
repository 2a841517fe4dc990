// Health checks and server reflection, where they are served.

import { Code } from "../../../src/base/status.ts";
import { Health, HealthCheckResponse, HealthCheckResponse_ServingStatus } from "../../../src/proto/health.ts";
import { ServerReflection, ServerReflectionResponse } from "../../../src/proto/reflection.ts";
import type { ServerReflectionRequestInit } from "../../../src/proto/reflection.ts";
import { defineArea, expectCode, expectEqual, expectOk, expectPresent, expectThat, type Check } from "../check.ts";
import type { Probe } from "../probe.ts";

export const healthChecks: readonly Check[] = defineArea(
  "health",
  ["health"],
  [
    {
      id: "overall",
      level: "MAY",
      says: "The server as a whole is SERVING.",
      cites: "grpc.health.v1 Health.Check",
      advice: "Answer for the empty service name.",
      run: async (p) => {
        const reply = await p.call(Health.methods.Check, {});
        expectOk(reply, "Check");
        expectEqual(reply.response?.status, HealthCheckResponse_ServingStatus.SERVING, "The status");
      },
    },
    {
      id: "unknown-service",
      level: "MUST",
      says: "Check of an unknown service is NOT_FOUND.",
      cites: "grpc.health.v1 Health.Check",
      advice: "Not SERVICE_UNKNOWN, which is for Watch.",
      run: async (p) =>
        expectCode(await p.call(Health.methods.Check, { service: "no.such.Service" }), [Code.NOT_FOUND], "Check"),
    },
    {
      id: "watch",
      level: "MAY",
      says: "Watch sends the current status at once.",
      cites: "grpc.health.v1 Health.Watch",
      advice: "UNIMPLEMENTED tells clients not to watch.",
      run: async (p) => {
        const call = await p.options.channel.start(Health.methods.Watch.path, { signal: p.signal });
        void call.send(Health.methods.Watch.input.encode({}));
        call.end();
        const bytes = await Promise.race([call.receive(), p.pause(3000)]);
        call.cancel();
        if (bytes === undefined) return expectCode(await call.outcome, [Code.UNIMPLEMENTED], "Watch");
        expectEqual(HealthCheckResponse.decode(bytes).status, HealthCheckResponse_ServingStatus.SERVING, "The status");
      },
    },
  ],
);

export const reflectionChecks: readonly Check[] = defineArea(
  "reflection",
  ["reflection"],
  [
    {
      id: "list",
      level: "MAY",
      says: "list_services names Capabilities.",
      cites: "grpc.reflection.v1 ListServiceResponse",
      advice: "List what is served.",
      run: async (p) => {
        const [answer] = await reflect(p, [{ listServices: "" }]);
        const names = answer?.listServicesResponse?.service.map(({ name }) => name) ?? [];
        expectThat(
          names.includes("build.bazel.remote.execution.v2.Capabilities"),
          `listed are ${names.join(", ") || "none"}`,
        );
      },
    },
    {
      id: "symbol",
      level: "MAY",
      says: "A service's file is found by its name.",
      cites: "grpc.reflection.v1 file_containing_symbol",
      advice: "Send the file and what it imports.",
      run: async (p) => {
        const [answer] = await reflect(p, [{ fileContainingSymbol: "build.bazel.remote.execution.v2.Capabilities" }]);
        expectThat((answer?.fileDescriptorResponse?.fileDescriptorProto.length ?? 0) > 0, "no file");
      },
    },
    {
      id: "unknown-symbol",
      level: "MUST",
      says: "An unknown symbol is an error_response and the stream goes on.",
      cites: "grpc.reflection.v1 ErrorResponse",
      advice: "Code 5 in the answer, not as the call's status.",
      run: async (p) => {
        const answers = await reflect(p, [{ fileContainingSymbol: "no.such.Symbol" }, { listServices: "" }]);
        expectEqual(answers[0]?.errorResponse?.errorCode, Code.NOT_FOUND, "error_code");
        expectPresent(answers[1]?.listServicesResponse, "the second answer");
      },
    },
  ],
);

async function reflect(p: Probe, requests: readonly ServerReflectionRequestInit[]) {
  const { path, input } = ServerReflection.methods.ServerReflectionInfo;
  const call = await p.options.channel.start(path, { signal: p.signal });
  for (const request of requests) await call.send(input.encode(request));
  call.end();
  const answers: ServerReflectionResponse[] = [];
  for (let bytes = await call.receive(); bytes !== undefined; bytes = await call.receive())
    answers.push(ServerReflectionResponse.decode(bytes));
  expectOk(await call.outcome, "ServerReflectionInfo");
  return answers;
}
