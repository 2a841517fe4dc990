// grpc.reflection v1 and v1alpha: the schema of this server, for grpcurl and its like.
//
// Invariant: one reply per request, in order; what is not found is a reply and not the end of the call. The messages of
// both versions are the same on the wire, so one implementation serves both names.

import type { Service, StreamCall } from "../grpc/service.ts";
import { Code, StatusError, invalidArgument } from "../base/status.ts";
import { descriptorFiles, symbolToFile } from "../proto/descriptors.ts";
import { ServerReflection, ServerReflectionRequest, ServerReflectionResponse } from "../proto/reflection.ts";
import type { ServerReflectionResponseInit } from "../proto/reflection.ts";
import { ServerReflection as ServerReflectionAlpha } from "../proto/reflection_v1alpha.ts";
import { decodeRequest } from "./decode.ts";

export interface ReflectionDeps {
  /** Names of the services the server offers; those made here are added. */
  readonly serviceNames: readonly string[];
}

/** Both versions. */
export function createReflectionServices(deps: ReflectionDeps): readonly Service[] {
  const versions = [ServerReflection, ServerReflectionAlpha];
  const serviceNames = [...new Set([...deps.serviceNames, ...versions.map(({ typeName }) => typeName)])];
  return versions.map(({ typeName, methods }) => ({
    name: typeName,
    methods: [
      {
        kind: "stream" as const,
        path: methods.ServerReflectionInfo.path,
        handler: (call: StreamCall) => reflect(serviceNames, call),
      },
    ],
  }));
}

async function reflect(serviceNames: readonly string[], call: StreamCall): Promise<void> {
  for (let bytes = await call.read(); bytes !== undefined; bytes = await call.read()) {
    const request = decodeRequest(ServerReflectionRequest, bytes);
    const reply = answer(serviceNames, request);
    const response = ServerReflectionResponse.encode({ validHost: request.host, originalRequest: request, ...reply });
    await call.write(response);
  }
}

function answer(serviceNames: readonly string[], request: ServerReflectionRequest): ServerReflectionResponseInit {
  try {
    if (request.listServices !== undefined) {
      return { listServicesResponse: { service: serviceNames.map((name) => ({ name })) } };
    }
    if (request.fileByFilename !== undefined) return fileReply(request.fileByFilename);
    if (request.fileContainingSymbol !== undefined) {
      const symbol = request.fileContainingSymbol;
      return fileReply(symbolToFile.get(symbol.replace(/^\./, "")) ?? absent(`symbol "${symbol}"`));
    }
    if (request.fileContainingExtension !== undefined) {
      const { containingType, extensionNumber } = request.fileContainingExtension;
      return absent(`extension ${extensionNumber} of "${containingType}"`);
    }
    if (request.allExtensionNumbersOfType !== undefined) {
      const baseTypeName = request.allExtensionNumbersOfType;
      if (!symbolToFile.has(baseTypeName)) return absent(`type "${baseTypeName}"`);
      return { allExtensionNumbersResponse: { baseTypeName } }; // there are no extensions here
    }
  } catch (error) {
    if (!(error instanceof StatusError) || error.code !== Code.NOT_FOUND) throw error;
    return { errorResponse: { errorCode: error.code, errorMessage: error.message } };
  }
  throw invalidArgument("ServerReflectionRequest: no message_request is set");
}

/** The file asked for first, then everything it imports. */
function fileReply(name: string): ServerReflectionResponseInit {
  const names = new Set([name]);
  const files: Uint8Array[] = [];
  for (const next of names) {
    const file = descriptorFiles.get(next) ?? absent(`file "${next}"`);
    files.push(file.bytes);
    for (const dependency of file.dependencies) names.add(dependency);
  }
  return { fileDescriptorResponse: { fileDescriptorProto: files } };
}

function absent(what: string): never {
  throw new StatusError(Code.NOT_FOUND, `${what} is not known here`);
}
