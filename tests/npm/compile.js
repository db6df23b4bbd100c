// Compiles a Solidity file as the checked-in bytecode was compiled and prints the creation code in hex.
// Usage: node compile.js FILE.sol CONTRACT
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const solc = require("solc");

const [file, contract] = process.argv.slice(2);
const name = path.basename(file);
const input = {
  language: "Solidity",
  sources: { [name]: { content: fs.readFileSync(file, "utf8") } },
  settings: {
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 200 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["evm.bytecode.object"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const error of output.errors ?? []) process.stderr.write(`${error.formattedMessage}\n`);
const compiled = output.contracts?.[name]?.[contract];
if (!compiled) process.exit(1);
process.stdout.write(`${compiled.evm.bytecode.object}\n`);
