#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "netlink/file.h"
#include "netlink/lock.h"
#include "netlink/namespace.h"
#include "netlink/socket.h"
#include "test/check.h"
#include "test/fresh_namespace.h"

namespace xfrmesh::test {
namespace {

// A directory that goes with its owner.
class Scratch {
 public:
  Scratch() {
    std::string form = "/tmp/xfrmesh-XXXXXX";
    if (mkdtemp(form.data()) == nullptr) throw std::runtime_error("no directory for scratch");
    path_ = form;
  }
  ~Scratch() {
    unlink(file().c_str());
    rmdir(path_.c_str());
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] std::string file() const { return path_ + "/file"; }

 private:
  std::string path_;
};

ino_t inodeOfOwn() {
  struct stat status {};
  return stat("/proc/thread-self/ns/net", &status) == 0 ? status.st_ino : 0;
}

Descriptor ownNamespace() { return Descriptor(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)); }

int nothing() { return 0; }

}  // namespace

TEST(work_is_done_in_the_namespace_and_the_caller_stays_in_its_own) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  const Descriptor first = ownNamespace();
  const ino_t firstInode = inodeOfOwn();
  CHECK(enterFreshNamespace());
  const ino_t ownInode = inodeOfOwn();
  CHECK(ownInode != firstInode);
  ino_t seen = 0;
  bool entered = false;
  const auto look = [&] {
    seen = inodeOfOwn();
    return 0;
  };
  CHECK_EQ(Namespace::ofDescriptor(first.get()).run(look, &entered), 0);
  CHECK(entered);
  CHECK_EQ(seen, firstInode);
  CHECK_EQ(inodeOfOwn(), ownInode);
  CHECK_EQ(Namespace().run(look, &entered), 0);
  CHECK_EQ(seen, ownInode);

  Socket socket;
  Socket::Step step = Socket::Step::kNone;
  CHECK_EQ(socket.open(Namespace::ofDescriptor(first.get()), {.protocol = NETLINK_XFRM}, step), 0);
  CHECK_EQ(socket.namespaceInode(), firstInode);
}

TEST(what_is_no_namespace_is_not_entered) {
  const Scratch scratch;
  bool entered = true;
  CHECK_EQ(Namespace::atPath(scratch.file()).run(nothing, &entered), ENOENT);
  CHECK(!entered);
  CHECK_EQ(mkfifo(scratch.file().c_str(), 0600), 0);
  CHECK_EQ(Namespace::atPath(scratch.file()).run(nothing, &entered), EINVAL);  // and did not wait for a writer
  CHECK(!entered);
  CHECK_EQ(Namespace::ofDescriptor(-1).run(nothing, &entered), EBADF);
  CHECK(!entered);
}

TEST(error_and_exception_of_the_work_come_back_as_errno) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  const Descriptor own = ownNamespace();
  const Namespace there = Namespace::ofDescriptor(own.get());
  CHECK_EQ(there.run([] { return EDOM; }), EDOM);
  CHECK_EQ(there.run([]() -> int { throw std::bad_alloc(); }), ENOMEM);
}

TEST(name_is_taken_once_in_a_namespace_and_free_when_its_holder_closes) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  const Descriptor first = ownNamespace();
  Descriptor held;
  Descriptor other;
  Holder holder;
  CHECK_EQ(takeName(Namespace(), "xfrmesh-test", held, holder), 0);
  CHECK_EQ(takeName(Namespace(), "xfrmesh-test", other, holder), EADDRINUSE);
  CHECK_EQ(holder.pid, getpid());
  CHECK(!other);
  CHECK(enterFreshNamespace());
  CHECK_EQ(takeName(Namespace(), "xfrmesh-test", other, holder), 0);
  held.reset();
  CHECK_EQ(takeName(Namespace::ofDescriptor(first.get()), "xfrmesh-test", held, holder), 0);
}

TEST(everybody_who_is_refused_a_name_is_told_whose_it_is) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  Descriptor held;
  Holder holder;
  CHECK_EQ(takeName(Namespace(), "xfrmesh-test", held, holder), 0);
  for (int i = 0; i < 100; i++) {
    Descriptor other;
    Holder told;
    CHECK_EQ(takeName(Namespace(), "xfrmesh-test", other, told), EADDRINUSE);
    CHECK_EQ(told.pid, getpid());
  }
}

TEST(file_is_read_as_its_namespace_has_it) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  std::string text;
  CHECK_EQ(readFile(Namespace(), "/proc/thread-self/net/dev", text), 0);
  CHECK(text.find("lo:") != std::string::npos);
  CHECK_EQ(readFile(Namespace(), "/proc/thread-self/net/none", text), ENOENT);
}

TEST(file_is_written_as_its_namespace_has_it) {
  if (!enterFreshNamespace()) SKIP(kNoNamespace);
  const std::string path = "/proc/sys/net/ipv4/ip_forward";
  const Descriptor first(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  CHECK(enterFreshNamespace());
  const Namespace other = Namespace::ofDescriptor(first.get());
  const auto valueIn = [&](const Namespace& where) {
    std::string text;
    CHECK_EQ(readFile(where, path, text), 0);
    return text;
  };
  CHECK_EQ(writeFile(other, path, "0"), 0);
  CHECK_EQ(writeFile(Namespace(), path, "1"), 0);
  CHECK_EQ(valueIn(Namespace()), "1\n");
  CHECK_EQ(valueIn(other), "0\n");
  CHECK_EQ(writeFile(other, path, "no number"), EINVAL);
  CHECK_EQ(writeFile(other, "/proc/sys/net/ipv4/none", "1"), ENOENT);
}

}  // namespace xfrmesh::test
