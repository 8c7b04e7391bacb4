#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

#include "netlink/rcu_switch.h"
#include "test/check.h"

namespace xfrmesh::test {
namespace {

// A switch that is a file, and the notes beside it.
class Host {
 public:
  explicit Host(const std::string& value) {
    if (mkdtemp(directory_.data()) == nullptr) throw std::runtime_error("no directory for scratch");
    std::ofstream(paths().control) << value;
  }
  ~Host() {
    unlink(paths().control.c_str());
    unlink(paths().notes.c_str());
    rmdir(directory_.c_str());
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  [[nodiscard]] RcuSwitch::Paths paths() const {
    return {.control = directory_ + "/control", .notes = directory_ + "/notes"};
  }
  [[nodiscard]] std::string value() const {
    std::string text;
    std::ifstream(paths().control) >> text;
    return text;
  }

  // A process that has the switch on when it is killed.
  void kill() const {
    const pid_t child = fork();
    if (child == 0) {
      RcuSwitch held(paths());
      held.on();
      ::kill(getpid(), SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
  }

 private:
  std::string directory_ = "/tmp/xfrmesh-XXXXXX";
};

TEST(rcu_switch_is_put_back_as_it_was_found) {
  for (const std::string found : {"0", "1"}) {
    const Host host(found);
    RcuSwitch held(host.paths());
    CHECK_EQ(held.on(), 0);
    CHECK_EQ(held.on(), 0);
    CHECK_EQ(host.value(), "1");
    CHECK_EQ(held.off(), 0);
    CHECK_EQ(held.off(), 0);
    CHECK_EQ(host.value(), found);
  }
}

TEST(rcu_switch_goes_off_with_the_last_of_those_who_have_it_on) {
  const Host host("0");
  RcuSwitch first(host.paths());
  {
    RcuSwitch second(host.paths());
    CHECK_EQ(first.on(), 0);
    CHECK_EQ(second.on(), 0);
    CHECK_EQ(first.off(), 0);
    CHECK_EQ(host.value(), "1");
    CHECK_EQ(first.on(), 0);
  }
  CHECK_EQ(host.value(), "1");
  // While anybody has it on there is nothing to mend.
  CHECK_EQ(RcuSwitch(host.paths()).mend(), 0);
  CHECK_EQ(host.value(), "1");
  CHECK_EQ(first.off(), 0);
  CHECK_EQ(host.value(), "0");
}

TEST(rcu_switch_left_on_by_a_killed_process_is_put_back_by_the_next) {
  const Host host("0");
  CHECK_EQ(RcuSwitch(host.paths()).mend(), 0);
  host.kill();
  CHECK_EQ(host.value(), "1");
  CHECK_EQ(RcuSwitch(host.paths()).mend(), 0);
  CHECK_EQ(host.value(), "0");

  host.kill();
  RcuSwitch next(host.paths());
  CHECK_EQ(next.on(), 0);
  CHECK_EQ(next.off(), 0);
  CHECK_EQ(host.value(), "0");
}

TEST(rcu_switch_that_cannot_be_set_says_so_and_leaves_no_note) {
  const Host host("0");
  unlink(host.paths().control.c_str());
  RcuSwitch held(host.paths());
  CHECK_EQ(held.on(), ENOENT);
  CHECK_EQ(held.off(), 0);
  const RcuSwitch::Paths nowhere{.control = host.paths().control, .notes = "/nonexistent/notes"};
  CHECK_EQ(RcuSwitch(nowhere).on(), ENOENT);
}

}  // namespace
}  // namespace xfrmesh::test
