#include "netlink/udp_encap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/udp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace xfrmesh {
namespace {

// Keepalives in one sendmmsg.
constexpr std::size_t kVolley = 256;
// How often keepalives wait for room in the send buffer, a millisecond each: SAs are committed by the same thread.
constexpr int kWaits = 10;

union SocketAddress {
  sockaddr any;
  sockaddr_in four;
  sockaddr_in6 six;
};

socklen_t socketAddress(sa_family_t family, const AddressBytes& address, std::uint16_t port, SocketAddress& to) {
  to = {};
  if (family == AF_INET) {
    to.four.sin_family = AF_INET;
    to.four.sin_port = htons(port);
    std::memcpy(&to.four.sin_addr, address, sizeof to.four.sin_addr);
    return sizeof to.four;
  }
  to.six.sin6_family = AF_INET6;
  to.six.sin6_port = htons(port);
  std::memcpy(&to.six.sin6_addr, address, sizeof to.six.sin6_addr);
  return sizeof to.six;
}

int setOption(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : errno;
}

int option(int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  return getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

int takeOutEsp(int fd) { return setOption(fd, IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP); }

// ESP and keepalives have been taken out when the filter is asked.
int dropTheRest(int fd) {
  sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog program{.len = 1, .filter = &nothing};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0 ? 0 : errno;
}

int prepare(int fd, sa_family_t family) {
  if (family == AF_INET) return setOption(fd, IPPROTO_IP, IP_FREEBIND, 1);
  const int error = setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  return error != 0 ? error : setOption(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
}

bool isAny(const SocketAddress& bound) {
  return bound.any.sa_family == AF_INET ? bound.four.sin_addr.s_addr == INADDR_ANY
                                        : IN6_IS_ADDR_UNSPECIFIED(&bound.six.sin6_addr);
}

bool isAt(const SocketAddress& bound, const SocketAddress& place) {
  return bound.any.sa_family == AF_INET ? bound.four.sin_addr.s_addr == place.four.sin_addr.s_addr
                                        : IN6_ARE_ADDR_EQUAL(&bound.six.sin6_addr, &place.six.sin6_addr);
}

// What of a socket is another than it should be.
UdpEncap::Step differs(int fd, const UdpEncap::Place& place, std::uint64_t namespaceInode) {
  using Step = UdpEncap::Step;
  if (option(fd, SOL_SOCKET, SO_TYPE) != SOCK_DGRAM || option(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_UDP) {
    return Step::kKind;
  }
  SocketAddress bound{};
  SocketAddress wanted{};
  socklen_t size = sizeof bound;
  socketAddress(place.family, place.address, place.port, wanted);
  if (getsockname(fd, &bound.any, &size) != 0 || bound.any.sa_family != place.family) return Step::kFamily;
  SocketAddress peer{};
  size = sizeof peer;
  if (getpeername(fd, &peer.any, &size) == 0) return Step::kConnected;
  std::array<char, IFNAMSIZ> device{};
  size = device.size();
  if (getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.data(), &size) == 0 && size > 0) return Step::kDevice;
  if (option(fd, SOL_SOCKET, SO_REUSEPORT) > 0) return Step::kReusePort;
  // The port is at the same offset in both.
  if (bound.four.sin_port != wanted.four.sin_port) return Step::kPort;
  if (!isAny(bound) && !isAt(bound, wanted)) return Step::kAddress;
  const std::uint64_t inode = namespaceInodeOf(fd);
  return inode != 0 && namespaceInode != 0 && inode != namespaceInode ? Step::kPlace : Step::kNone;
}

// The source address of what a socket at all addresses sends.
class Source {
 public:
  explicit Source(const UdpEncap::Place& place) {
    msghdr header{};
    header.msg_control = room_.data();
    header.msg_controllen = room_.size();
    cmsghdr* control = CMSG_FIRSTHDR(&header);
    if (place.family == AF_INET) {
      in_pktinfo info{};
      std::memcpy(&info.ipi_spec_dst, place.address, sizeof info.ipi_spec_dst);
      put(control, IPPROTO_IP, IP_PKTINFO, info);
    } else {
      in6_pktinfo info{};
      std::memcpy(&info.ipi6_addr, place.address, sizeof info.ipi6_addr);
      put(control, IPPROTO_IPV6, IPV6_PKTINFO, info);
    }
  }

  void set(msghdr& header) {
    header.msg_control = room_.data();
    header.msg_controllen = size_;
  }

 private:
  template <typename T>
  void put(cmsghdr* control, int level, int type, const T& info) {
    control->cmsg_level = level;
    control->cmsg_type = type;
    control->cmsg_len = CMSG_LEN(sizeof info);
    std::memcpy(CMSG_DATA(control), &info, sizeof info);
    size_ = CMSG_SPACE(sizeof info);
  }

  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(in6_pktinfo))> room_{};
  std::size_t size_ = 0;
};

}  // namespace

int UdpEncap::open(const Namespace& where, const Place& place, Step& step) {
  bool entered = false;
  Descriptor opened;
  step = Step::kSocket;
  const int error = where.run(
      [&] {
        opened.reset(socket(place.family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
        if (!opened) return errno;
        const int prepared = prepare(opened.get(), place.family);
        if (prepared != 0) return prepared;
        // Before there is an address, so that nothing comes that it would keep.
        step = Step::kEncap;
        const int encap = takeOutEsp(opened.get());
        if (encap != 0) return encap;
        const int filtered = dropTheRest(opened.get());
        if (filtered != 0) return filtered;
        step = Step::kBind;
        SocketAddress here{};
        const socklen_t size = socketAddress(place.family, place.address, place.port, here);
        return bind(opened.get(), &here.any, size) == 0 ? 0 : errno;
      },
      &entered);
  if (!entered) step = Step::kNamespace;
  if (error != 0) return error;
  step = Step::kNone;
  fd_ = std::move(opened);
  place_ = place;
  return 0;
}

int UdpEncap::adopt(int fd, const Place& place, std::uint64_t namespaceInode, Step& step) {
  step = Step::kSocket;
  Descriptor taken(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!taken) return errno;
  step = differs(taken.get(), place, namespaceInode);
  const int use = option(taken.get(), IPPROTO_UDP, UDP_ENCAP);
  if (step == Step::kNone && use > 0 && use != UDP_ENCAP_ESPINUDP) step = Step::kUse;
  if (step != Step::kNone) return EINVAL;
  step = Step::kEncap;
  const int error = takeOutEsp(taken.get());
  if (error != 0) return error;
  step = Step::kNone;
  fd_ = std::move(taken);
  place_ = place;
  return 0;
}

int UdpEncap::check() const {
  if (!fd_) return EBADF;
  const bool intact =
      option(fd_.get(), IPPROTO_UDP, UDP_ENCAP) == UDP_ENCAP_ESPINUDP && differs(fd_.get(), place_, 0) == Step::kNone;
  return intact ? 0 : ENOPROTOOPT;
}

UdpEncap::Sent UdpEncap::keepAlive(std::span<const AddressBytes> addresses, std::span<const std::uint16_t> ports,
                                   const Control& control) const {
  Sent result;
  Source source(place_);
  std::uint8_t byte = 0xff;
  iovec data{.iov_base = &byte, .iov_len = sizeof byte};
  std::array<SocketAddress, kVolley> to{};
  std::array<mmsghdr, kVolley> messages{};
  int waits = 0;
  for (std::size_t next = 0; next < addresses.size();) {
    result.ending = control.check();
    if (result.ending != Ending::kComplete) return result;
    const std::size_t count = std::min(kVolley, addresses.size() - next);
    for (std::size_t i = 0; i < count; i++) {
      msghdr& header = messages[i].msg_hdr;
      header.msg_namelen = socketAddress(place_.family, addresses[next + i], ports[next + i], to[i]);
      header.msg_name = &to[i];
      header.msg_iov = &data;
      header.msg_iovlen = 1;
      source.set(header);
    }
    const int sent =
        sendmmsg(fd_.get(), messages.data(), static_cast<unsigned int>(count), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      next += static_cast<std::size_t>(sent);
      result.sent += static_cast<std::uint32_t>(sent);
    } else if (errno == EAGAIN && waits++ < kWaits) {
      pollfd room{.fd = fd_.get(), .events = POLLOUT, .revents = 0};
      static_cast<void>(poll(&room, 1, 1));
    } else if (errno == EAGAIN) {
      result.error = EAGAIN;
      result.failed += static_cast<std::uint32_t>(addresses.size() - next);
      return result;
    } else if (errno != EINTR) {
      // It is the first of the volley that can't be sent.
      result.error = errno;
      result.failed++;
      next++;
    }
  }
  return result;
}

}  // namespace xfrmesh
