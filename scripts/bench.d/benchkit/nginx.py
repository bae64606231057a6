"""nginx as a TLS proxy before a plain tracker: one process, with what it sets by itself but for what is said here."""

from .peers import debian
from .process import Server

CONFIG = """\
daemon off;
master_process off;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    keepalive_requests 100000000;
    upstream tracker {{
        server 127.0.0.1:{tracker};
        keepalive 256;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=1024;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://tracker;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
"""


def start(port, tracker, key, cert, core, folder):
    """The proxy on `port`, before the tracker on port `tracker`, with connections to it that stay open."""
    home = folder / f"nginx-{port}"
    home.mkdir()
    config = home / "nginx.conf"
    config.write_text(CONFIG.format(home=home, port=port, tracker=tracker, key=key, cert=cert))
    command = [debian("nginx", "nginx"), "-c", config, "-e", home / "error.log"]
    return Server(command, port, core, folder)
