// Check your own JavaScript layer against a golden trace, with nothing but Node.
//
//     node scripts/readers/reader.mjs tests/fixtures/nano [EPS]
//
// The layer here is the embeddings' layer norm; put yours in its place.

import { readFileSync } from "node:fs";

function refuse(message) {
  console.error(message);
  process.exit(2);
}

const [path, eps = 1e-12] = process.argv.slice(2);
if (!path) refuse("usage: node reader.mjs TRACE [EPS]");

function read(name) {
  try {
    return readFileSync(name);
  } catch (error) {
    refuse(`cannot read the trace: ${error.message}`);
  }
}

const file = read(`${path}.safetensors`);
const explained = JSON.parse(read(`${path}.json`).toString("utf8")).tensors;
const length = Number(file.readBigUInt64LE(0));
const header = JSON.parse(file.toString("utf8", 8, 8 + length));
const arrays = { F64: Float64Array, F32: Float32Array, I64: BigInt64Array, BOOL: Uint8Array };

function tensor(name) {
  if (!(name in header))
    refuse(`the trace has no ${name}: of a checkpoint, make it with trace --store_weights`);
  if (explained[name].stride) refuse(`${name} is thinned: make the trace without --limit`);
  const { dtype, shape, data_offsets: [begin, end] } = header[name];
  const bytes = file.buffer.slice(file.byteOffset + 8 + length + begin, file.byteOffset + 8 + length + end);
  return { data: new arrays[dtype](bytes), shape, dtype };
}

function myLayer(x, weight, bias, eps) {
  const mean = x.reduce((a, b) => a + b) / x.length;
  const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
  return x.map((v, h) => ((v - mean) / Math.sqrt(variance + eps)) * weight[h] + bias[h]);
}

const name = "activation/bert.embeddings.LayerNorm";
const x = Float64Array.from(tensor("activation/bert.embeddings.sum").data);
const weight = tensor("weight/bert.embeddings.LayerNorm.weight").data;
const bias = tensor("weight/bert.embeddings.LayerNorm.bias").data;
const mask = tensor("input/attention_mask").data;
const { data: golden, dtype } = tensor(name);
const H = weight.length;

let difference = 0, norm = 0;
mask.forEach((real, t) => {
  if (!real) return;
  const y = myLayer(x.slice(t * H, (t + 1) * H), weight, bias, Number(eps));
  y.forEach((v, h) => {
    difference += (v - golden[t * H + h]) ** 2;
    norm += golden[t * H + h] ** 2;
  });
});
const error = Math.sqrt(difference / norm);
const budget = explained[name].budget_float32 * (dtype === "F64" ? 2 ** -29 : 1);
console.log(`${name}: error ${error.toExponential(1)}, budget ${budget.toExponential(1)}`);
process.exit(error > budget ? 1 : 0);
