// A statically linked program for the test images. It stands in for the process of an MCP server, and attempts to escape
// from its container. It is compiled by the tests, not by cargo.

use std::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

extern "C" {
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn ptrace(request: c_int, pid: c_int, address: *mut c_void, data: *mut c_void) -> c_long;
    fn unshare(flags: c_int) -> c_int;
    fn setuid(uid: u32) -> c_int;
    fn chroot(path: *const c_char) -> c_int;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn fork() -> c_int;
    fn pause() -> c_int;
    fn reboot(command: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["echo"] => echo(),
        ["exit", code] => std::process::exit(code.parse().unwrap()),
        ["wait"] => loop {
            unsafe { pause() };
        },
        ["facts"] => facts(),
        ["escape", ref addresses @ ..] => escape(addresses),
        ["memory"] => memory(),
        ["forks"] => forks(),
        ["serve", port] => serve(port),
        ["write", path, text] => report("write", fs::write(path, text)),
        ["read", path] => println!("{}", fs::read_to_string(path).unwrap()),
        ["daemon-sockets"] => {
            io::stdin().read_line(&mut String::new()).unwrap();
            use_daemon_sockets();
        }
        _ => panic!("unknown arguments"),
    }
}

fn report(name: &str, result: io::Result<()>) {
    match result {
        Ok(()) => println!("{name}=ok"),
        Err(error) => println!("{name}={error}"),
    }
}

fn echo() {
    eprintln!("ready");
    for line in io::stdin().lock().lines() {
        println!("echo {}", line.unwrap());
    }
    eprintln!("end of input");
}

fn facts() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for name in ["Uid", "Gid", "Groups", "CapEff", "CapBnd", "CapPrm", "CapAmb", "NoNewPrivs", "Seccomp"] {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        println!("{name}={}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        if ["/", "/tmp", "/run/secrets", "/data"].contains(&fields[1]) {
            println!("mount {}={} {}", fields[1], fields[2], fields[3]);
        }
    }
    for path in ["/run/secrets", "/run/secrets/TOKEN", "/data", "/tmp"] {
        if let Ok(metadata) = fs::metadata(path) {
            println!("stat {path}={}:{} {:o}", metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        }
    }
    if let Ok(secret) = fs::read_to_string("/run/secrets/TOKEN") {
        println!("secret={secret}");
    }
    for (name, value) in std::env::vars() {
        println!("env {name}={value}");
    }
    println!("resolv={}", fs::read_to_string("/etc/resolv.conf").unwrap().replace('\n', "|"));
    println!("hosts={}", fs::read_to_string("/etc/hosts").unwrap().replace('\n', "|"));
    println!("done=");
}

fn check(name: &str, result: c_long) {
    report(name, if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
}

fn escape(addresses: &[&str]) {
    report("write /", fs::write("/x", "x"));
    report("write /etc/passwd", fs::write("/etc/passwd", "x"));
    report("write /proc/sys", fs::write("/proc/sys/kernel/core_pattern", "|/x"));
    report("write /proc/sysrq-trigger", fs::write("/proc/sysrq-trigger", "s"));
    report("write cgroup", fs::write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9999999999"));
    report("write secret", fs::write("/run/secrets/TOKEN", "x"));
    report("write secrets", fs::write("/run/secrets/x", "x"));
    report("docker socket", fs::metadata("/var/run/docker.sock").map(|_| ()));
    report("read /proc/kcore", fs::File::open("/proc/kcore").and_then(|mut file| file.read_exact(&mut [0])));
    report("list processes of the host", fs::metadata("/proc/2/comm").map(|_| ()));
    fs::copy("/proc/self/exe", "/tmp/program").unwrap();
    fs::set_permissions("/tmp/program", fs::Permissions::from_mode(0o4755)).unwrap();
    report("execute in /tmp", std::process::Command::new("/tmp/program").arg("exit").arg("0").status().map(|_| ()));
    unsafe {
        let (proc, tmp) = (c"proc".as_ptr(), c"/tmp".as_ptr());
        check("mount proc", mount(proc, tmp, proc, 0, std::ptr::null()).into());
        check("remount /", mount(c"/".as_ptr(), c"/".as_ptr(), std::ptr::null(), 32, std::ptr::null()).into());
        check("raw socket", socket(2, 3, 1).into());
        check("packet socket", socket(17, 3, 0x0300).into());
        check("unshare user", unshare(0x1000_0000).into());
        check("unshare mount", unshare(0x0002_0000).into());
        check("unshare net", unshare(0x4000_0000).into());
        check("setuid", setuid(0).into());
        check("chroot", chroot(tmp).into());
        check("device", mknod(c"/tmp/device".as_ptr(), 0o060_666, 0x0800).into());
        check("reboot", reboot(0x0123_4567).into());
        // PTRACE_ATTACH to process 2, which does not exist: the PID namespace contains only this process, with the ID 1.
        check("ptrace", ptrace(16, 2, std::ptr::null_mut(), std::ptr::null_mut()));
        // bpf, perf_event_open, keyctl, init_module, kexec_load, open_by_handle_at, userfaultfd on x86-64.
        #[cfg(target_arch = "x86_64")]
        for (name, number) in
            [("bpf", 321), ("perf", 298), ("keyctl", 250), ("module", 175), ("kexec", 246), ("handle", 304), ("userfaultfd", 323)]
        {
            check(name, syscall(number, 0, 0, 0, 0, 0));
        }
    }
    report("IPv6", fs::read_to_string("/proc/net/if_inet6").and_then(|interfaces| {
        let has_other = interfaces.lines().any(|line| !line.trim_end().ends_with(" lo"));
        if has_other { Ok(()) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
    }));
    std::thread::scope(|scope| {
        for address in addresses {
            scope.spawn(move || {
                let result = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2));
                report(&format!("connect {address}"), result.map(|_| ()));
            });
        }
    });
    println!("done=");
}

// Connects to the proxy and sends a DNS query, as a client in a container does.
fn use_daemon_sockets() {
    report("proxy", TcpStream::connect("127.0.0.1:3128").and_then(|mut stream| stream.write_all(b"hello")));
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap();
    let server = resolv.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03api\x07example\x00\x00\x01\x00\x01";
    socket.send_to(query, (server, 53)).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    println!("answer={:?}", &answer[length - 4..length]);
}

fn memory() {
    let mut blocks = Vec::new();
    loop {
        let mut block = vec![0_u8; 8 * 1024 * 1024];
        block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        blocks.push(block);
    }
}

fn forks() {
    let mut count = 0;
    loop {
        match unsafe { fork() } {
            0 => loop {
                unsafe { pause() };
            },
            -1 => break,
            _ => count += 1,
        }
    }
    println!("forks={count}");
    loop {
        unsafe { pause() };
    }
}

fn serve(port: &str) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    println!("listening");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = [0; 5];
        stream.read_exact(&mut request).unwrap();
        eprintln!("received {}", String::from_utf8_lossy(&request));
        stream.write_all(b"pong").unwrap();
    }
}
