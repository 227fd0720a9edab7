// The package `ws` as plainly as it goes: a path is a topic, a POST to it is said to all who are
// connected to it. Usage: node ws.mjs PORT
import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'

const topics = new Map()

const server = createServer((request, response) => {
  const parts = []
  request.on('data', part => parts.push(part))
  request.on('end', () => {
    // Bytes, so that the text is not encoded anew for each.
    const message = Buffer.concat(parts)
    for (const socket of topics.get(request.url) ?? []) socket.send(message, { binary: false })
    response.writeHead(204).end()
  })
})

new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket, request) => {
  const topic = request.url
  if (!topics.has(topic)) topics.set(topic, new Set())
  topics.get(topic).add(socket)
  socket.on('close', () => topics.get(topic).delete(socket))
})

// As many may wait to be accepted as the kernel allows; by itself Node lets 511.
server.listen(Number(process.argv[2]), '127.0.0.1', 16384)
