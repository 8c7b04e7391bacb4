#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "netlink/message.h"
#include "netlink/namespace.h"

struct mnl_socket;

namespace xfrmesh {

using Clock = std::chrono::steady_clock;

// A netlink socket in a network namespace, with answers as short and as telling as the kernel gives them (CAP_ACK,
// EXT_ACK), and buffers as large as this process may have. For one thread at a time.
class Socket {
 public:
  struct Options {
    int protocol = 0;                 // NETLINK_XFRM, NETLINK_NETFILTER, NETLINK_ROUTE
    std::uint32_t receiveBuffer = 0;  // bytes to ask for; 0: kReceiveBuffer
    std::uint32_t sendBuffer = 0;     // bytes to ask for; 0: kSendBuffer
    std::uint32_t chunk = 0;          // most messages a send; 0: kChunk
  };
  // What opening failed at, for an error that says so.
  enum class Step { kNone, kNamespace, kSocket, kBind };
  enum class Received {
    kData,   // a datagram, in data()
    kEmpty,  // none by the deadline
    kLost,   // the receive buffer overran: answers are missing (ENOBUFS)
    kError,  // the socket failed; errno in error()
  };

  // Sends of 64 to 256 messages cost least: in longer ones the kernel's hash tables cannot grow (FACTS.md).
  static constexpr std::uint32_t kChunk = 256;
  static constexpr std::uint32_t kReceiveBuffer = 4U << 20;
  static constexpr std::uint32_t kSendBuffer = 4U << 20;

  Socket();
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // 0 or an errno, and where it came from in `step`.
  int open(const Namespace& where, const Options& options, Step& step);

  // 0 or an errno, and then nothing was sent. The kernel has handled the messages when this returns, and its answers
  // are in the receive buffer.
  int send(Bytes messages);
  // The next datagram from the kernel; with a deadline in the past, only one that is there.
  Received receive(Clock::time_point deadline);
  [[nodiscard]] Bytes data() const { return data_; }
  [[nodiscard]] int error() const { return error_; }

  // Has the kernel look at requests closely from here on (NETLINK_GET_STRICT_CHK, since 4.20): only then it heeds all
  // that a dump asks for, and refuses what it does not know. Older kernels answer with more than was asked for.
  void checkStrictly();

  // Receives what the kernel multicasts to that group, from here on. 0 or an errno.
  int join(std::uint32_t group);
  // Waits until there is something to receive, or `wake` is readable, or the deadline has come. `wake` is emptied.
  // 0 or an errno.
  int wait(Clock::time_point deadline, int wake);

  // The first of `count` sequence numbers that no answer in flight bears.
  std::uint32_t sequences(std::uint32_t count);

  // Messages in one send such that all their answers fit the receive buffer that was granted.
  [[nodiscard]] std::uint32_t chunk() const { return chunk_; }
  // Bytes that one send may hold.
  [[nodiscard]] std::size_t sendLimit() const { return sendLimit_; }

  // The inode of the network namespace the socket is in, 0 if the kernel does not say. It stays the same while the
  // socket is open, even where the namespace's name is gone or is another's by then.
  [[nodiscard]] std::uint64_t namespaceInode() const { return namespaceInode_; }

  // Takes what is in the receive buffer, and forgets it. A dump that was not read to its end goes on with each datagram
  // taken (netlink_recvmsg), and so comes to its end.
  void drain();

  // Overwrites what was received last: a dump of states holds keys.
  void wipe();

 private:
  void sizeBuffers(const Options& options);

  std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket_;
  std::vector<std::byte> buffer_;
  Bytes data_;
  int error_ = 0;
  std::uint32_t sequence_ = 0;
  std::uint32_t chunk_ = 0;
  std::size_t sendLimit_ = 0;
  std::uint64_t namespaceInode_ = 0;
};

// The inode of the network namespace that a socket is in, whatever its kind; 0 if the kernel does not say (SIOCGSKNS
// takes CAP_NET_ADMIN).
std::uint64_t namespaceInodeOf(int socket);

// Wipes a socket's buffer when it goes.
class WipedAfter {
 public:
  explicit WipedAfter(Socket& socket) : socket_(socket) {}
  ~WipedAfter() { socket_.wipe(); }
  WipedAfter(const WipedAfter&) = delete;
  WipedAfter& operator=(const WipedAfter&) = delete;

 private:
  Socket& socket_;
};

}  // namespace xfrmesh
