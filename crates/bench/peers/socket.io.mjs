// Socket.IO as plainly as it goes: clients join rooms, a POST to a room's path is said to it.
// Usage: node socket.io.mjs PORT
import { createServer } from 'node:http'
import { Server } from 'socket.io'

const server = createServer((request, response) => {
  // Socket.IO has handled its own path by then.
  if (request.url.startsWith('/socket.io/')) return
  let body = ''
  request.setEncoding('utf8')
  request.on('data', part => { body += part })
  request.on('end', () => {
    io.to(request.url.slice(1)).emit('said', body)
    response.writeHead(204).end()
  })
})

const io = new Server(server, { transports: ['websocket'], perMessageDeflate: false })
io.on('connection', socket => {
  socket.on('join', (room, done) => {
    socket.join(room)
    done()
  })
})

// As many may wait to be accepted as the kernel allows; by itself Node lets 511.
server.listen(Number(process.argv[2]), '127.0.0.1', 16384)
