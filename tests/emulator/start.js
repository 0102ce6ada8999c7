// Starts one emulator on a free port of this machine's loopback, and ends when its starter does.
//
//     node start.js MODULE [ARGUMENT...]      its first line of output is the port
//
// The emulators listen on every interface, on a port chosen beforehand; here they cannot. A line with a number on
// standard input puts their clock forward by so many seconds, so that iterators and records expire while we look.
'use strict'

const { createInterface } = require('node:readline')
const net = require('node:net')

const PLAIN = 1 // the port to ask for: whoever asks for another (TLS) listens too, unannounced
const say = process.stdout.write.bind(process.stdout)
process.stdout.write = process.stderr.write.bind(process.stderr) // what we say is all that is said there
let ahead_ms = 0

const RealDate = Date
globalThis.Date = class Date extends RealDate {
  constructor(...parts) {
    super(...(parts.length ? parts : [RealDate.now() + ahead_ms]))
  }

  static now() {
    return RealDate.now() + ahead_ms
  }
}

const passed = performance.now.bind(performance)
performance.now = () => passed() + ahead_ms

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  if (Number(port) === PLAIN) this.once('listening', () => say(`${this.address().port}\n`))
  return listen.call(this, { host: '127.0.0.1', port: 0 }, ...rest)
}

createInterface({ input: process.stdin })
  .on('line', (seconds) => {
    ahead_ms += Number(seconds) * 1000
    say('forward\n')
  })
  .on('close', () => process.exit())

process.argv.splice(1, 1) // what MODULE sees is its own command line
require(process.argv[1])
