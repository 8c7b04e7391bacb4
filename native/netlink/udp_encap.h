// ESP in UDP (RFC 3948): the socket that makes the kernel take ESP out of UDP, and keepalives.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <span>

#include "netlink/exchange.h"

namespace xfrmesh {

// An address as records have it: IPv4 in the first four bytes.
using AddressBytes = std::uint8_t[16];

// The kernel looks at what comes to a UDP socket that says so (UDP_ENCAP): ESP goes to its SA, keepalives go nowhere,
// and neither ever comes to the socket. What else comes is for an IKE daemon; of that there is none behind a socket of
// ours, and it is dropped before it takes room. For one thread at a time.
class UdpEncap {
 public:
  struct Place {
    sa_family_t family = AF_INET;
    AddressBytes address = {};
    std::uint16_t port = 0;  // host byte order
  };
  // What opening failed at, or what of a socket handed in is another than it should be.
  enum class Step : std::uint8_t {
    kNone,
    kNamespace,
    kSocket,
    kBind,
    kEncap,
    kKind,
    kFamily,
    kConnected,
    kDevice,
    kReusePort,
    kUse,
    kPort,
    kAddress,
    kPlace
  };

  // Opens one at that place. It need have no such address yet: SAs do not either. 0 or an errno.
  int open(const Namespace& where, const Place& place, Step& step);
  // Takes a duplicate of one that somebody holds, at that place or at all addresses, in the namespace of that inode (0:
  // that can't be told), and open to what comes from anywhere: neither connected nor bound to a device, nor one of a
  // group (SO_REUSEPORT) over which the kernel spreads packets. What comes to it beside ESP stays its holder's. 0 or an
  // errno, with EINVAL what is wrong.
  int adopt(int fd, const Place& place, std::uint64_t namespaceInode, Step& step);

  [[nodiscard]] int fd() const { return fd_.get(); }
  // 0 if the kernel takes ESP out of all that comes to its place; an errno, ENOPROTOOPT where another holder made
  // another use of it: of its UDP_ENCAP, or by what adopt() refuses.
  [[nodiscard]] int check() const;

  struct Sent {
    Ending ending = Ending::kComplete;
    std::uint32_t sent = 0;
    std::uint32_t failed = 0;
    int error = 0;  // of the last that failed
  };
  // Sends each of these a keepalive: one byte 0xff (RFC 3948, 2.3). Those that can't be sent to stand in nobody's way.
  // Where the send buffer stays full, the rest fail with EAGAIN.
  [[nodiscard]] Sent keepAlive(std::span<const AddressBytes> addresses, std::span<const std::uint16_t> ports,
                               const Control& control) const;

 private:
  Descriptor fd_;
  Place place_;
};

}  // namespace xfrmesh
