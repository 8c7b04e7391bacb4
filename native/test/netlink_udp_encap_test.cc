#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/udp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "netlink/udp_encap.h"
#include "test/check.h"
#include "test/fresh_namespace.h"

namespace xfrmesh::test {
namespace {

using Place = UdpEncap::Place;
using Step = UdpEncap::Step;

constexpr std::uint16_t kPort = 4500;

Place placeOf(sa_family_t family, const char* address, std::uint16_t port = kPort) {
  Place place{.family = family, .address = {}, .port = port};
  inet_pton(family, address, place.address);
  return place;
}

const std::array<Place, 2> kHere{placeOf(AF_INET, "127.0.0.1"), placeOf(AF_INET6, "::1")};

void raiseLoopback() {
  const Descriptor fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", sizeof request.ifr_name - 1);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  ioctl(fd.get(), SIOCSIFFLAGS, &request);
}

socklen_t fill(const Place& place, sockaddr_storage& to) {
  to = {};
  if (place.family == AF_INET) {
    auto* four = reinterpret_cast<sockaddr_in*>(&to);
    four->sin_family = AF_INET;
    four->sin_port = htons(place.port);
    std::memcpy(&four->sin_addr, place.address, 4);
    return sizeof *four;
  }
  auto* six = reinterpret_cast<sockaddr_in6*>(&to);
  six->sin6_family = AF_INET6;
  six->sin6_port = htons(place.port);
  std::memcpy(&six->sin6_addr, place.address, 16);
  return sizeof *six;
}

Descriptor boundSocket(const Place& place, int type = SOCK_DGRAM) {
  Descriptor fd(socket(place.family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  sockaddr_storage to{};
  const socklen_t size = fill(place, to);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), size) != 0) fd.reset();
  return fd;
}

void send(const Place& place, const std::vector<std::uint8_t>& bytes) {
  const Descriptor fd(socket(place.family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage to{};
  const socklen_t size = fill(place, to);
  CHECK_EQ(sendto(fd.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to), size),
           static_cast<ssize_t>(bytes.size()));
}

// What waits in a socket, or -1.
ssize_t waiting(int fd) {
  std::array<std::uint8_t, 64> room{};
  return recv(fd, room.data(), room.size(), MSG_DONTWAIT);
}

int use(int fd, int type) { return setsockopt(fd, IPPROTO_UDP, UDP_ENCAP, &type, sizeof type); }

int useOf(int fd) {
  int type = -1;
  socklen_t size = sizeof type;
  return getsockopt(fd, IPPROTO_UDP, UDP_ENCAP, &type, &size) == 0 ? type : -1;
}

int turn(int fd, int option, int on) { return setsockopt(fd, SOL_SOCKET, option, &on, sizeof on); }

const Control kUnhurried{.deadline = Clock::time_point::max()};
const std::vector<std::uint8_t> kEsp{0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8};

}  // namespace

TEST(a_socket_of_ours_takes_esp_out_and_keeps_nothing) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  raiseLoopback();
  for (const Place& place : kHere) {
    UdpEncap encap;
    Step step = Step::kSocket;
    CHECK_EQ(encap.check(), EBADF);
    CHECK_EQ(encap.open(Namespace(), place, step), 0);
    CHECK(step == Step::kNone);
    CHECK_EQ(encap.check(), 0);
    send(place, kEsp);
    send(place, {0xff});
    send(place, {0, 0, 0, 0, 1, 2, 3, 4});
    send(place, {1, 2, 3});
    CHECK_EQ(waiting(encap.fd()), -1);
    CHECK_EQ(errno, EAGAIN);
  }
}

TEST(a_port_that_is_held_is_not_taken_and_an_address_need_not_be_there) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  raiseLoopback();
  for (const Place& place : kHere) {
    const Descriptor holder = boundSocket(place);
    CHECK(holder.get() >= 0);
    UdpEncap encap;
    Step step = Step::kNone;
    CHECK_EQ(encap.open(Namespace(), place, step), EADDRINUSE);
    CHECK(step == Step::kBind);
    CHECK_EQ(encap.fd(), -1);
  }
  for (const Place& place : {placeOf(AF_INET, "192.0.2.77"), placeOf(AF_INET6, "2001:db8::77")}) {
    UdpEncap encap;
    Step step = Step::kNone;
    CHECK_EQ(encap.open(Namespace(), place, step), 0);
  }
  UdpEncap encap;
  Step step = Step::kNone;
  CHECK_EQ(encap.open(Namespace::atPath("/nowhere"), kHere[0], step), ENOENT);
  CHECK(step == Step::kNamespace);
}

TEST(a_socket_handed_in_is_looked_at_and_duplicated) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  raiseLoopback();
  for (const Place& place : kHere) {
    const bool four = place.family == AF_INET;
    const Place any = placeOf(place.family, four ? "0.0.0.0" : "::");
    const Place other = placeOf(place.family, four ? "127.0.0.2" : "2001:db8::9");
    for (const Place& bound : {place, any}) {
      UdpEncap encap;
      Step step = Step::kSocket;
      Descriptor given = boundSocket(bound);
      CHECK_EQ(encap.adopt(given.get(), place, namespaceInodeOf(given.get()), step), 0);
      CHECK(step == Step::kNone);
      CHECK(encap.fd() != given.get());
      given.reset();
      CHECK_EQ(encap.check(), 0);
      // Another holder may make another use of it.
      CHECK_EQ(use(encap.fd(), 0), 0);
      CHECK_EQ(encap.check(), ENOPROTOOPT);
      CHECK_EQ(use(encap.fd(), UDP_ENCAP_ESPINUDP), 0);
      CHECK_EQ(encap.check(), 0);
      CHECK_EQ(setsockopt(encap.fd(), SOL_SOCKET, SO_BINDTODEVICE, "lo", 2), 0);
      CHECK_EQ(encap.check(), ENOPROTOOPT);
      CHECK_EQ(setsockopt(encap.fd(), SOL_SOCKET, SO_BINDTODEVICE, "", 0), 0);
      CHECK_EQ(encap.check(), 0);
      CHECK_EQ(turn(encap.fd(), SO_REUSEPORT, 1), 0);
      CHECK_EQ(encap.check(), ENOPROTOOPT);
      CHECK_EQ(turn(encap.fd(), SO_REUSEPORT, 0), 0);
      sockaddr_storage peer{};
      const socklen_t size = fill(placeOf(place.family, four ? "127.0.0.1" : "::1", 7001), peer);
      CHECK_EQ(connect(encap.fd(), reinterpret_cast<const sockaddr*>(&peer), size), 0);
      CHECK_EQ(encap.check(), ENOPROTOOPT);
      const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
      CHECK_EQ(connect(encap.fd(), &nobody, sizeof nobody), 0);
      CHECK_EQ(encap.check(), 0);
      // ESP and keepalives are the kernel's; what comes beside is its holder's.
      send(place, kEsp);
      send(place, {0xff});
      CHECK_EQ(waiting(encap.fd()), -1);
      send(place, {0, 0, 0, 0, 1, 2, 3, 4});
      CHECK_EQ(waiting(encap.fd()), 8);
    }
    const auto refused = [&](int fd, const Place& wanted, std::uint64_t inode = 0) {
      UdpEncap encap;
      Step step = Step::kNone;
      CHECK_EQ(encap.adopt(fd, wanted, inode, step), EINVAL);
      CHECK_EQ(encap.fd(), -1);
      return step;
    };
    const Descriptor given = boundSocket(place);
    // That of one who shares addresses alone serves.
    CHECK_EQ(turn(given.get(), SO_REUSEADDR, 1), 0);
    // The kernel would give others of that port some of the packets.
    CHECK_EQ(turn(given.get(), SO_REUSEPORT, 1), 0);
    CHECK(refused(given.get(), place) == Step::kReusePort);
    CHECK_EQ(turn(given.get(), SO_REUSEPORT, 0), 0);
    // What it is for already stays so.
    CHECK_EQ(use(given.get(), UDP_ENCAP_L2TPINUDP), 0);
    CHECK(refused(given.get(), place) == Step::kUse);
    CHECK_EQ(useOf(given.get()), UDP_ENCAP_L2TPINUDP);
    for (const int before : {0, UDP_ENCAP_ESPINUDP}) {
      CHECK_EQ(use(given.get(), before), 0);
      UdpEncap encap;
      Step step = Step::kSocket;
      CHECK_EQ(encap.adopt(given.get(), place, 0, step), 0);
      CHECK_EQ(useOf(given.get()), UDP_ENCAP_ESPINUDP);
    }
    CHECK(refused(given.get(), placeOf(place.family, "127.0.0.1", kPort + 1)) == Step::kPort);
    CHECK(refused(given.get(), other) == Step::kAddress);
    CHECK(refused(given.get(), kHere[four ? 1 : 0]) == Step::kFamily);
    const Descriptor bound = boundSocket(placeOf(place.family, four ? "0.0.0.0" : "::", kPort + 1));
    const Place next{.family = place.family, .address = {}, .port = kPort + 1};
    CHECK_EQ(setsockopt(bound.get(), SOL_SOCKET, SO_BINDTODEVICE, "lo", 2), 0);
    CHECK(refused(bound.get(), next) == Step::kDevice);
    CHECK_EQ(setsockopt(bound.get(), SOL_SOCKET, SO_BINDTODEVICE, "", 0), 0);
    sockaddr_storage peer{};
    const socklen_t size = fill(place, peer);
    CHECK_EQ(connect(bound.get(), reinterpret_cast<const sockaddr*>(&peer), size), 0);
    CHECK(refused(bound.get(), placeOf(place.family, four ? "127.0.0.1" : "::1", kPort + 1)) == Step::kConnected);
    const std::uint64_t inode = namespaceInodeOf(given.get());
    if (inode != 0) CHECK(refused(given.get(), place, inode + 1) == Step::kPlace);
    CHECK(refused(boundSocket(place, SOCK_STREAM).get(), place) == Step::kKind);
    const Descriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK(refused(file.get(), place) == Step::kKind);
    UdpEncap encap;
    Step step = Step::kNone;
    CHECK_EQ(encap.adopt(-1, place, 0, step), EBADF);
  }
}

TEST(keepalives_go_from_our_place_to_all_that_can_be_sent_to) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  raiseLoopback();
  for (const Place& place : kHere) {
    const bool four = place.family == AF_INET;
    // At all addresses: the source is ours all the same.
    Descriptor given = boundSocket(placeOf(place.family, four ? "0.0.0.0" : "::"));
    UdpEncap encap;
    Step step = Step::kNone;
    CHECK_EQ(encap.adopt(given.get(), place, 0, step), 0);
    const Descriptor one = boundSocket(placeOf(place.family, four ? "127.0.0.1" : "::1", 7001));
    const Descriptor other = boundSocket(placeOf(place.family, four ? "127.0.0.1" : "::1", 7002));
    // More than a volley, and one in the middle where no route leads.
    constexpr std::size_t kCount = 600;
    std::vector<std::uint8_t> bytes(kCount * sizeof(AddressBytes));
    std::vector<std::uint16_t> ports(kCount, 7001);
    for (std::size_t i = 0; i < kCount; i++) {
      std::memcpy(bytes.data() + i * sizeof(AddressBytes), place.address, sizeof(AddressBytes));
    }
    const Place nowhere = placeOf(place.family, four ? "198.51.100.1" : "2001:db8:1::1");
    std::memcpy(bytes.data() + 300 * sizeof(AddressBytes), nowhere.address, sizeof(AddressBytes));
    ports.back() = 7002;
    const std::span addresses(reinterpret_cast<const AddressBytes*>(bytes.data()), kCount);
    const UdpEncap::Sent sent = encap.keepAlive(addresses, ports, kUnhurried);
    CHECK(sent.ending == Ending::kComplete);
    CHECK_EQ(sent.sent, kCount - 1);
    CHECK_EQ(sent.failed, 1U);
    CHECK_EQ(sent.error, ENETUNREACH);

    std::array<std::uint8_t, 4> room{};
    sockaddr_storage from{};
    sockaddr_storage expected{};
    socklen_t size = sizeof from;
    CHECK_EQ(recvfrom(other.get(), room.data(), room.size(), MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &size),
             1);
    CHECK_EQ(room[0], 0xff);
    CHECK_EQ(size, fill(place, expected));
    if (four) CHECK_EQ(std::memcmp(&from, &expected, 8), 0);
    CHECK_EQ(reinterpret_cast<sockaddr_in*>(&from)->sin_port, htons(kPort));
    CHECK_EQ(waiting(one.get()), 1);
  }
}

// A bridge without ports, over which nobody answers for an address: what is sent there waits, and takes up the buffer.
bool raiseDeadEnd(const Place& place) {
  const Descriptor fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "dead", sizeof request.ifr_name - 1);
  if (ioctl(fd.get(), SIOCBRADDBR, "dead") != 0) return false;
  sockaddr_storage address{};
  fill(place, address);
  std::memcpy(&request.ifr_addr, &address, sizeof request.ifr_addr);
  if (ioctl(fd.get(), SIOCSIFADDR, &request) != 0) return false;
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  return ioctl(fd.get(), SIOCSIFFLAGS, &request) == 0;
}

TEST(keepalives_end_where_the_send_buffer_stays_full) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  const Place place = placeOf(AF_INET, "10.1.2.3");
  if (!raiseDeadEnd(place)) SKIP("no bridge here");
  const Descriptor given = boundSocket(place);
  const int least = 1;
  CHECK_EQ(setsockopt(given.get(), SOL_SOCKET, SO_SNDBUF, &least, sizeof least), 0);
  UdpEncap encap;
  Step step = Step::kNone;
  CHECK_EQ(encap.adopt(given.get(), place, 0, step), 0);
  constexpr std::size_t kCount = 300;
  std::vector<std::uint8_t> bytes(kCount * sizeof(AddressBytes));
  for (std::size_t i = 0; i < kCount; i++) {
    std::memcpy(bytes.data() + i * sizeof(AddressBytes), placeOf(AF_INET, "10.1.2.4").address, sizeof(AddressBytes));
  }
  const std::vector<std::uint16_t> ports(kCount, 7001);
  const std::span addresses(reinterpret_cast<const AddressBytes*>(bytes.data()), kCount);
  const UdpEncap::Sent sent = encap.keepAlive(addresses, ports, kUnhurried);
  CHECK(sent.ending == Ending::kComplete);
  CHECK(sent.sent > 0);
  CHECK_EQ(sent.sent + sent.failed, kCount);
  CHECK(sent.failed > 1);
  CHECK_EQ(sent.error, EAGAIN);
}

TEST(keepalives_end_when_their_time_is_up) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  raiseLoopback();
  UdpEncap encap;
  Step step = Step::kNone;
  CHECK_EQ(encap.open(Namespace(), kHere[0], step), 0);
  const std::array<std::uint16_t, 1> ports{7001};
  const AddressBytes* address = &kHere[0].address;
  const UdpEncap::Sent sent = encap.keepAlive(std::span(address, 1), ports, {.deadline = Clock::time_point::min()});
  CHECK(sent.ending == Ending::kLate);
  CHECK_EQ(sent.sent, 0U);
}

}  // namespace xfrmesh::test
